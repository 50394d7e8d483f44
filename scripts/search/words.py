"""Text to words, the same way for pages, names and (in `docs/assets/search/engine.js`) queries."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache

import jieba

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
RUN = re.compile(rf"[{HAN}]+|[a-z0-9_]+(?:\.[a-z0-9_]+)*")
CAMEL = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*d?|[0-9]+")

# Words that ask, join or point; no page is found by them.
STOP_WORDS = """
a about al also an and any are as at be between by can could did difference do does each et for from
get give handle happen happens has have how i if in into is it its just many me meaning much my need
of on one or our please should so some such tell than that the their them then there these they this
those to use used using versus very vs was we were what when where which who why will with without
would you your formula equation tutorial explained implementation implement

的 了 是 在 和 与 或 及 吗 呢 吧 啊 呀 地 得 着 也 就 都 而 则 其 之 于
以 把 被 从 到 对 将 会 能 要 让 我 你 它 他 们 这 那 哪 几 个 有 没 不
又 再 还 很 更 最 请 为 所 啥 该 里 于是 因为 所以 如果 但是 可是 以及 还是
或者 什么 怎么 怎样 如何 为何 为啥 哪些 哪个 哪里 哪种 多少 可以 不能 请问 一下
意思 到底 究竟 应该 需要 之间 区别 差别 它们 我们 你们 这个 那个 一个 这些 那些
没有 公式 原理 实现 详解 教程
哪一个 哪一种 算不算 会不会 要不要 该不该 是否 能否 合适 怎么计算 如何计算 怎样计算 怎么处理 如何处理
就是 怎么样 怎么办 为什么 是什么 什么是 是不是 有没有 能不能 怎么算 什么意思
"""
STOP = frozenset(STOP_WORDS.split())


@lru_cache(maxsize=1 << 16)
def normal(text: str) -> str:
    """One form of all ways to write the same: width, case, accents."""
    decomposed = unicodedata.normalize("NFKD", text.replace("\u200b", ""))
    return "".join(c for c in decomposed if not unicodedata.category(c).startswith("M")).lower()


def stem(word: str) -> str:
    """English plurals to singulars; nothing cleverer, so that names stay what they are."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and word[-2] not in "sui":
        return word[:-1]
    return word


@lru_cache
def segmenter(names: frozenset[str] = frozenset()) -> jieba.Tokenizer:
    """Cuts Chinese into words; the site's own terms stay whole."""
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.initialize()
    for name in sorted(names):
        for run in re.findall(f"[{HAN}]+", name):
            tokenizer.add_word(run, 100_000)
    return tokenizer


def words(text: str, cut: jieba.Tokenizer) -> Iterator[str]:
    """The words of a text in order: Chinese ones with the shorter words in them, names with their parts."""
    yield from (stem(part) for part in camel_parts(text))
    for run in RUN.findall(normal(text)):
        found = cut.cut_for_search(run) if run[0] >= "\u3400" else latin(run)
        yield from (word for word in found if word not in STOP)


def latin(run: str) -> Iterator[str]:
    """`torch.nn.conv_2d` whole, then `torch`, `nn`, `conv_2d`, `conv`, `2d`; each as its stem."""
    seen = set()
    for piece in (run, *run.split("."), *re.split(r"[._]+", run)):
        word = stem(piece.strip("._"))
        if word and word not in seen:
            seen.add(word)
            yield word


def camel_parts(text: str) -> Iterator[str]:
    """`CausalConv1d` holds `causal` and `conv1d`."""
    for name in re.findall(r"\b[A-Z]?[a-z0-9]+(?:[A-Z][a-z0-9]*)+\b", text):
        parts = [part.lower() for part in CAMEL.findall(name)]
        if len(parts) > 1:
            yield from (part for part in parts if len(part) > 3)


@lru_cache(maxsize=1 << 16)
def squeezed(text: str) -> str:
    """A name as one string: `Dilated Conv-1D` and `dilated conv 1d` are the same name."""
    return "".join(word for word in re.findall(rf"[{HAN}]+|[a-z0-9]+", normal(text)))


def worth_keeping(word: str) -> bool:
    """Numbers and terms of formulas say nothing, a paper's number does; single characters are found through words."""
    return not re.match(rf"[\d_]|[{HAN}]$", word) or bool(re.fullmatch(r"\d{4}\.\d{4,5}|\d?d", word))


def counted(found: Iterable[str]) -> dict[str, int]:
    return dict(Counter(word for word in found if len(word) < 48 and worth_keeping(word)))
