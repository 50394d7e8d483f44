"""The index: what goes in comes out, Chinese is cut into words, both sides read words alike."""

from __future__ import annotations

import functools
import gzip
import json
import multiprocessing
import re

import pytest
from lxml import html
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from scripts.pipeline.pages import article, pages
from scripts.pipeline.paths import LANGUAGES, topics
from scripts.pipeline.source import all_snippets
from scripts.pipeline.words import glossary
from scripts.search import index, measure, words
from scripts.search.records import Record, bare, hand_down, names_used, tidy

from .conftest import Engine, read_files


class Uncut:
    """A segmenter that is not there: each run of Chinese is one long word."""

    def cut_for_search(self, run):
        return [run]


@pytest.fixture(scope="module")
def cut():
    return words.segmenter(frozenset({"感受野", "空洞卷积"}))


def test_chinese_is_cut_with_the_sites_own_terms(cut):
    assert list(words.words("增大感受野的空洞卷积", cut)) == [
        "增大",
        "感受",
        "感受野",
        "空洞",
        "卷积",
        "空洞卷积",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear_sum_assignment", ["linear_sum_assignment", "linear", "sum", "assignment"]),
        ("torch.nn.functional", ["torch.nn.functional", "torch", "nn", "functional"]),
        ("CausalConv1d", ["causal", "conv1d", "causalconv1d"]),
        ("The kernels’ sizes", ["kernel", "size"]),
        ("Ｆｕｌｌ à trous", ["full", "trous"]),
        ("3×3卷积", ["3", "3", "卷积"]),
        ("class, kernels, studies", ["class", "kernel", "study"]),
    ],
)
def test_names_are_whole_and_in_parts_and_small_words_are_left_out(cut, text, expected):
    assert list(words.words(text, cut)) == expected


def test_bare_numbers_are_left_out_and_papers_numbers_kept():
    assert words.counted(["0.25", "42", "1511.07122", "conv2d", "里", "卷积", "卷积"]) == {
        "1511.07122": 1,
        "conv2d": 1,
        "卷积": 2,
    }


def test_the_coded_index_comes_out_as_it_went_in(site, found, engine):
    for language in LANGUAGES:
        counts = index.page_words(
            found[language], words.segmenter(frozenset(index.site_names(found[language])))
        )
        engine.ask(language, "iou")
        decoded = engine.call(
            f"[...ProvenSearch.books.{language}.words].map(([word, on]) => [word, [...on]])"
        )
        assert [word for word, _ in decoded] == sorted(set().union(*counts))
        for word, on in decoded:
            assert on == [
                [page, index.level(count[word])] for page, count in enumerate(counts) if word in count
            ], word


def test_the_engine_reads_text_as_the_index_does(site, engine, cut):
    engine.ask("zh", "iou")
    for text in ("Ｆｕｌｌ　Width", "à trous", "感受野", "Sørensen–Dice", "½ × ③"):
        assert engine.call(f"ProvenSearch.normal({json.dumps(text)})") == words.normal(text)
    engine.ask("zh", "空洞捲積")  # an unknown word: the table of characters is loaded
    assert engine.call('ProvenSearch.normal("空洞捲積與網格效應")') == "空洞卷积与网格效应"


def test_everything_can_be_found(found):
    for language in LANGUAGES:
        records = [record for page in found[language] for record in page.records]
        ids = {record.id for record in records}
        assert {f"code-{s.name.replace('.', '-')}" for s in all_snippets().values()} <= ids
        assert set(glossary()) <= {record.id for record in records if record.kind == "t"}
        named = {page.name for page in found[language]}
        assert {page.name for page in pages(language)} <= named
        for topic in topics():
            page = next(p for p in found[language] if p.topic == topic and p.article)
            source = article(topic, language)
            assert source is not None
            assert {s.id for s in source.sections if s.level > 1} <= {record.id for record in page.records}
            assert {r.name for r in source.references} <= {r.id for r in page.records if r.kind == "r"}


def test_texts_hold_prose_and_no_code_or_evidence(found):
    for language in LANGUAGES:
        for page in found[language]:
            for record in page.records:
                assert not re.search(
                    r"def \w+\(|import torch|>>>|¶|\u200b|\\frac|2\.13\.0\+cpu", record.text
                ), record


@pytest.mark.parametrize(
    ("language", "code", "expected"),
    [
        (
            "python",
            "def f(num_classes: int) -> Tensor:\n    _x = torch.bincount(num_classes)\n    return len(_x)",
            {"num_classes", "torch", "bincount"},
        ),
        (
            "java",
            "class Race { void go() { pool.submit(() -> Thread.sleep(1000L)); } }",
            {"Race", "pool", "submit", "Thread", "sleep"},
        ),
    ],
)
def test_a_snippet_is_found_by_what_its_code_names_in_any_language(language, code, expected):
    shown = highlight(code, get_lexer_by_name(language), HtmlFormatter())
    assert set(names_used(html.fromstring(f"<div>{shown}</div>")).split()) == expected


def test_terms_reach_the_section_whose_heading_bears_one_of_their_names():
    page = Record("1", "", "空洞卷积", ["膨胀卷积", "网格效应", "WaveNet", "Dilated convolution"])
    gridding = Record("3", "gridding", "用计数看网格效应", hidden="Gridding, by counting")
    unrelated = Record("3", "cost", "计算量", hidden="Cost")
    mistake = Record("3", "mistake-gridding", "「网格效应」", hidden="Gridding")
    tap = Record("3", "taps", "权重在哪里", hidden="Where the weights are")
    hand_down([page, unrelated, mistake, gridding, tap], "dilated_convolution", {"output-stride": "taps"})
    assert "网格效应" in gridding.names
    assert "棋盘效应" in gridding.names, "another name of the term"
    assert "网格效应" not in page.names
    assert "膨胀卷积" in page.names, "the term of the page itself stays with the page"
    assert "WaveNet" not in page.names
    assert page.loose == ["WaveNet"], "still a name, though of nothing in particular"
    assert "output stride" in tap.names, "no heading bears it: it belongs where it is introduced"
    assert unrelated.names == mistake.names == []


def test_what_spells_a_title_out_is_its_name_as_is_a_term_of_its_summary():
    page = Record("1", "", "DETR", ["detection transformer", "set prediction", "目标检测", "DETR"])
    hand_down([page, Record("2", "tldr", "一句话")], "detr", {"object-detection": "tldr"})
    assert page.names == ["detection transformer", "目标检测", "DETR"]
    assert page.loose == ["set prediction"]


def test_a_heading_that_is_a_term_itself_bears_no_other():
    whole = Record("3", "iou", "平均交并比", hidden="Mean IoU")
    page = Record("1", "", "语义分割指标", ["Semantic segmentation metrics"])
    hand_down([page, whole], "segmentation_metrics", {})
    assert "平均交并比" in whole.names
    assert "交并比" not in whole.names


def test_rows_of_numbers_are_not_text():
    assert tidy("a sentence.\n  3 4.5\u200b 6 \n\n中文 句子。\n") == "a sentence.\n中文 句子。"
    assert bare("流\u200b ¶") == "流", "a heading of one character is one"


def test_the_engine_reads_every_character_of_the_site_and_every_common_one(found, engine):
    engine.ask("zh", "kongdongjuanji")
    wanted = index.common() + "".join(
        set(re.findall(f"[{words.HAN}]", "".join(index.build(found[la], la)["words"] for la in LANGUAGES)))
    )
    sounds = engine.call(f"[...{json.dumps(wanted)}].map(ProvenSearch.spell)")
    assert len(index.common()) == 3755
    assert sounds == [index.reading(character) for character in wanted]


def test_without_the_segmenter_the_goals_are_missed(site, found, engine):
    """Were jieba to go, or to do nothing, this is how it would show."""
    chinese = [
        q
        for q in measure.queries()
        if q.language == "zh" and q.kind in ("question", "middle", "mixed", "half")
    ]
    uncut_files = read_files(site)
    for language in LANGUAGES:
        uncut_files[f"{language}/index"] = index.script(index.build(found[language], language, Uncut()))
    scores = [
        measure.Score.of(map(asked.answer, chinese)).section_first / len(chinese)
        for asked in (engine, Engine(uncut_files))
    ]
    assert scores[1] < 0.85 <= scores[0]


def test_hits_are_marked_where_they_stand(engine):
    engine.ask("zh", "空洞卷积")
    cases = [
        (
            "膨胀卷积、空洞卷积和 Dilated Convolutions。",
            ["空洞卷积", "dilated", "convolution"],
            ["空洞卷积", "Dilated", "Convolutions"],
        ),
        ("ＡＳＰＰ 与 aspp_taps", ["aspp"], ["ＡＳＰＰ", "aspp_taps"]),
        ("一个卷积核的卷积", ["卷积"], ["卷积", "卷积"]),
        ("nothing here", ["卷积"], []),
    ]
    for text, marks, expected in cases:
        ranges = engine.call(f"ProvenSearch.hits({json.dumps(text)}, {json.dumps(marks)})")
        assert [text[a:b] for a, b in ranges] == expected


def test_the_sentence_shown_is_the_one_that_is_hit(engine):
    results = engine.ask("zh", "完备序列")["results"]
    assert "完备序列" in results[0]["excerpt"]["text"]
    start, end = results[0]["excerpt"]["ranges"][0]
    assert results[0]["excerpt"]["text"][start:end] == "完备序列"


def test_an_article_is_first_for_its_title_and_a_snippet_for_its_name(engine):
    """No query has to be written for that to be sure of a new article."""
    for language in LANGUAGES:
        for topic in topics():
            page = article(topic, language)
            assert page is not None
            first = engine.ask(language, page.title)["results"][0]
            assert (first["page"], first["id"]) == (page.name, "top"), page.title
    for snippet in all_snippets().values():
        results = engine.ask("zh", snippet.name)["results"]
        assert snippet.name in [result["title"] for result in results[:3]], snippet.name


def test_a_term_of_several_words_is_found_where_they_stand_apart(engine):
    engine.ask("zh", "感受野")
    inside = engine.call('ProvenSearch.search("zh", "语义分割指标").tokens.map((token) => token.pieces)')
    assert inside == [["语义", "分割", "指标"]] or inside == [["语义分割", "指标"]]


def loaded_for(engine, query):
    engine.ask(query.language, query.text)
    return engine.loaded


def in_a_copy_of_this_process(call):
    """What it returns there; here nothing has happened, so the next call starts from the same."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    copy = multiprocessing.get_context("fork").Process(target=lambda: sender.send(call()))
    copy.start()
    sender.close()
    answer = receiver.recv()
    copy.join()
    return answer


def test_one_query_fetches_little(site):
    """Script, index, characters and texts, from nothing loaded to the results in the reader's language."""
    files = read_files(site)
    script = sum(len(gzip.compress(path.read_bytes(), 9)) for path in measure.search_files(site)["script"])
    engines = {language: Engine(files) for language in LANGUAGES}
    for language, engine in engines.items():
        engine.load(f"{language}/index")  # takes longest, and no query does without
    costs = []
    for query in measure.queries()[::20]:
        loaded = in_a_copy_of_this_process(functools.partial(loaded_for, engines[query.language], query))
        fetched = [len(gzip.compress(files[name].encode(), 9)) for name in loaded]
        costs.append((script + sum(fetched), query.text))
    costs.sort()
    # A few are dearer: slips that need the table of characters and then fit many pages.
    assert costs[int(0.9 * len(costs))][0] <= 120_000, costs
    assert costs[-1][0] <= 140_000, costs
