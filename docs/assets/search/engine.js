"use strict";

// Finds pages by their words and names, then the best records of these pages by their text.
// Knows nothing of the browser: the box asks, loads what `need` names, and asks again.
const ProvenSearch = (function () {
  const HAN = /[\u3400-\u4dbf\u4e00-\u9fff]/;
  const RUN = /[\u3400-\u4dbf\u4e00-\u9fff]+|[a-z0-9_]+(?:\.[a-z0-9_]+)*/g;
  const LEAST = 0.42; // share of a query, by weight, that a result has to hold
  const PAGES_READ = 4; // pages whose texts are read for one query
  const books = {};
  let readings = null; // character → syllable, loaded when a word is not known
  const simple = new Map(); // traditional character → simplified, loaded with them

  // --- Loading -----------------------------------------------------------------------------

  function add(data) {
    if (data.sounds) {
      readings = decodeSounds(data);
      for (let i = 0; i < data.simplified.length; i += 2) simple.set(data.simplified[i], data.simplified[i + 1]);
    } else if (data.texts) books[data.language].pages[data.page].loaded(data);
    else books[data.language] = book(data);
  }

  // GB 2312 lists the common characters by their sound: the data say where each sound begins.
  function decodeSounds({ sounds, others }) {
    const bytes = [];
    for (let high = 0xb0; high < 0xd8; high++) for (let low = 0xa1; low < 0xff; low++) bytes.push(high, low);
    const begins = new Map(sounds.split(" ").map((entry) => [entry.slice(-1), entry.slice(0, -1)]));
    const found = new Map();
    let sound = "";
    for (const character of new TextDecoder("gb2312").decode(new Uint8Array(bytes))) {
      sound = begins.get(character) || sound;
      found.set(character, sound);
    }
    for (const [, other, characters] of others.matchAll(/([a-z]+)([^a-z ]+)/g)) {
      for (const character of characters) found.set(character, other);
    }
    return found;
  }

  function book(data) {
    const words = new Map(); // word → Map(page → level)
    const vocabulary = [];
    for (const coded of data.words.match(/[A-Z][^A-Z]*/g)) {
      const last = vocabulary[vocabulary.length - 1] || "";
      vocabulary.push(last.slice(0, coded.charCodeAt(0) - 65) + coded.slice(1));
    }
    let page = -1;
    let on = null;
    for (const character of data.places) {
      const code = character.codePointAt(0) - 35;
      if (code % 2) {
        page = -1;
        words.set(vocabulary[words.size], on = new Map());
      }
      page += 1 + Math.floor(code / 6);
      on.set(page, (code >> 1) % 3);
    }
    const stop = new Set(data.stop.split(" "));
    const pairs = new Set(); // two characters that stand together in a word
    for (const word of words.keys()) {
      if (HAN.test(word[0])) for (let i = 1; i < word.length; i++) pairs.add(word.slice(i - 1, i + 1));
    }
    const made = {
      language: data.language, words, stop, pairs, sorted: [...words.keys()],
      longest: 8, names: new Map(), terms: new Set(), written: new Map(), spelled: null,
    };
    made.pages = data.pages.map(function (page, number) {
      return pageOf(made, page, number);
    });
    const terms = new Map();
    const homes = new Map(); // a term's name → the page that explains it
    for (const page of made.pages) {
      for (const record of page.records.filter((r) => r.kind === "t")) {
        terms.set(`#${record.id}`, record);
        for (const word of [record.title, ...record.names]) homes.set(squeezed(normal(word)), record.home);
      }
    }
    for (const page of made.pages) {
      for (const record of page.records) {
        record.names = record.names.flatMap((other) => (terms.has(other) ? [terms.get(other).title, ...terms.get(other).names] : other));
        if (/[1t]/.test(record.kind)) {
          for (const word of [record.title, ...record.names, ...record.loose]) made.terms.add(squeezed(normal(word)));
        }
        // A heading may be a term that another article explains: 位置编码 in DETR's code.
        record.guest = /[2-4]/.test(record.kind) && ![undefined, page.number].includes(homes.get(squeezed(record.label)));
        name(made, record.title, record, record.guest ? 0.8 : 1);
        if (/[2-4]/.test(record.kind)) name(made, record.id.replace(/-/g, " "), record, 0.95);
        for (const other of record.names) name(made, other, record, record.kind === "1" ? 0.9 : 0.95);
        for (const other of record.loose) name(made, other, record, 0.3);
        if (record.home !== undefined) {
          const home = made.pages[record.home].records[0];
          for (const word of [record.title, ...record.names]) {
            name(made, word, home, squeezed(home.label).includes(squeezed(normal(word))) ? 0.7 : 0.3);
          }
        }
      }
    }
    return made;
  }

  function pageOf(owner, page, number) {
    const made = { number, url: page.url, kind: page.kind, book: owner, ready: false };
    let parents = [];
    let within = ""; // the page's part, by the id of its heading
    made.records = page.records.map(function ([kind, id, title, names = [], loose = [], home], index) {
      const record = {
        page: made, kind, id, title, index, names, loose, home: home === "" ? undefined : home,
        text: "", plain: "", label: normal(title),
      };
      if (kind === "2") within = id;
      record.minor = /^(exercises|mistakes|evidence)$/.test(within);
      if (/[1-4]/.test(kind)) {
        parents = parents.slice(0, kind - 1);
        parents[kind - 1] = title;
      }
      record.under = parents.slice(1, /[1-4]/.test(kind) ? kind - 1 : 4).filter(Boolean);
      return record;
    });
    made.title = made.records[0].title;
    made.loaded = function (data) {
      made.records.forEach(function (record, index) {
        record.text = data.texts[index];
        record.hidden = data.hidden[index];
      });
      made.ready = true;
    };
    return made;
  }

  function name(owner, text, record, weight) {
    for (const key of new Set([squeezed(core(owner, text)), squeezed(normal(text))])) {
      if (!key) continue;
      if (!owner.names.has(key)) owner.names.set(key, new Map());
      const known = owner.names.get(key);
      known.set(record, Math.max(weight, known.get(record) || 0));
      if (!owner.written.has(key)) owner.written.set(key, text);
    }
  }

  // --- Words, as scripts/search/words.py makes them ----------------------------------------

  function normal(text) {
    return [...text.normalize("NFKD").replace(/[\p{M}\u200b]/gu, "").toLowerCase()]
      .map((c) => simple.get(c) || c).join("");
  }

  function stem(word) {
    if (word.length > 4 && word.endsWith("ies")) return word.slice(0, -3) + "y";
    if (word.length > 3 && word.endsWith("s") && !"sui".includes(word[word.length - 2])) return word.slice(0, -1);
    return word;
  }

  function squeezed(text) {
    return (text.match(/[\u3400-\u4dbf\u4e00-\u9fff]+|[a-z0-9]+/g) || []).join("");
  }

  // A name or query without the words that only ask: 什么是感受野 → 感受野.
  function core(owner, text) {
    const found = [];
    for (const run of normal(text).match(RUN) || []) {
      if (HAN.test(run)) found.push(...cut(owner, run).filter((p) => !owner.stop.has(p.text)).map((p) => p.text));
      else if (!owner.stop.has(run)) found.push(stem(run));
    }
    return found.length ? found.join(" ") : normal(text);
  }

  // Chinese into the site's words by the cheapest cover; what is left over counts as unknown.
  function cut(owner, run, longest = owner.longest) {
    const best = [{ cost: 0, from: -1 }];
    for (let end = 1; end <= run.length; end++) {
      for (let start = Math.max(0, end - longest); start < end; start++) {
        const text = run.slice(start, end);
        const [kind, cost] = piece(owner, text);
        if (cost < 9 && !(best[end] && best[end].cost <= best[start].cost + cost)) {
          best[end] = { cost: best[start].cost + cost, from: start, text, kind };
        }
      }
    }
    const pieces = [];
    for (let at = run.length; at > 0; at = best[at].from) pieces.unshift(best[at]);
    return pieces;
  }

  function piece(owner, text) {
    if (owner.stop.has(text)) return ["stop", text.length > 1 ? 0.9 : 1.2];
    if (owner.words.has(text)) return ["word", 1];
    if (text.length === 1) return ["part", owner.sorted.some((w) => w.includes(text)) ? 2.4 : 2.6];
    for (let i = 1; i < text.length; i++) if (!owner.pairs.has(text.slice(i - 1, i + 1))) return ["", 9];
    return owner.sorted.some((w) => w.includes(text)) ? ["part", 1.3] : ["", 9];
  }

  // --- A query -----------------------------------------------------------------------------

  // Each word of the query with the site's words that it may stand for, each at a weight.
  function analyse(owner, query) {
    const tokens = [];
    const text = normal(query);
    const runs = text.match(RUN) || [];
    runs.forEach(function (run, number) {
      const typing = number === runs.length - 1 && text.endsWith(run);
      if (HAN.test(run)) {
        for (const found of cut(owner, run)) {
          if (found.kind === "stop") continue;
          const token = { text: found.text, han: true, options: new Map() };
          if (found.kind === "word") {
            token.options.set(found.text, 1);
            token.pieces = piecesOf(owner, found.text);
          }
          else partsOf(owner, token, text.trim().length === 1);
          tokens.push(token);
        }
      } else if (!owner.stop.has(run)) {
        tokens.push(latinToken(owner, run, typing));
      }
    });
    // A query of nothing but asking words has nothing to find.
    return tokens;
  }

  // A long word may be written apart: 线程状态, and 线程的状态.
  function piecesOf(owner, word) {
    const inner = word.length > 3 ? cut(owner, word, word.length - 1).filter((p) => p.kind !== "stop") : [];
    return inner.length > 1 && inner.every((p) => p.kind === "word") ? inner.map((p) => p.text) : null;
  }

  // Part of a Chinese word, from its middle as well: 洞卷 in 空洞卷积.
  function partsOf(owner, token, alone) {
    const single = token.text.length === 1;
    const most = !single ? 0.9 : alone ? 1 : 0.5;
    for (const word of owner.sorted) {
      // One character alone most likely means the term that has it: 头 in 多头注意力, rather than in 从头.
      if (word.includes(token.text)) token.options.set(word, alone && owner.terms.has(word) ? most : most * Math.sqrt(token.text.length / word.length));
      else if (token.text.length > 2 && word.length > 1 && token.text.includes(word)) token.options.set(word, 0.6 * word.length / token.text.length);
    }
    if (!single || alone) token.options.set(token.text, most);
    token.single = single && !alone;
  }

  function latinToken(owner, run, typing) {
    const word = stem(run.replace(/^[._]+|[._]+$/g, "") || run);
    const token = { text: word, han: false, options: new Map() };
    const put = (w, weight) => token.options.set(w, Math.max(weight, token.options.get(w) || 0));
    if (owner.words.has(word)) put(word, 1);
    if ((typing || !token.options.size) && word.length > 1) {
      for (const other of owner.sorted) {
        if (other.startsWith(word) && other !== word) put(other, 0.9 * Math.pow(word.length / other.length, 0.4));
      }
    }
    if (!token.options.size) {
      const parts = word.split(/[._]+/).filter((p) => p && owner.words.has(stem(p)));
      if (parts.length > 1) token.parts = parts.map(stem);
    }
    if (!token.options.size && !token.parts) {
      for (const other of owner.sorted) {
        if (word.length > 3 && other.length > word.length && other.includes(word)) put(other, 0.6 * word.length / other.length);
        else if (related(word, other)) put(other, 0.6);
      }
      token.guessed = !token.options.size;
      if (token.guessed) {
        for (const form of new Set([run, word])) for (const [other, weight] of nearest(owner.sorted, form)) put(other, weight);
      }
    }
    return token;
  }

  // dilating, dilated, dilation: the same beginning, other endings.
  function related(a, b) {
    if (HAN.test(b[0]) || a.length < 6 || b.length < 6) return false;
    let same = 0;
    while (same < a.length && a[same] === b[same]) same++;
    return same >= 5 && a.length - same <= 4 && b.length - same <= 4 && same * 2 > Math.max(a.length, b.length);
  }

  function allowed(length, han) {
    if (han) return length < 3 ? 0 : length < 7 ? 1 : 2;
    return length < 4 ? 0 : length < 7 ? 1 : length < 14 ? 2 : 3;
  }

  function nearest(all, word) {
    const most = allowed(word.length, false);
    const found = [];
    let least = most;
    for (const other of all) {
      if (HAN.test(other[0]) || Math.abs(other.length - word.length) > least) continue;
      const distance = edits(word, other, least);
      if (distance < least) found.length = 0;
      if (distance <= least) {
        least = distance;
        found.push([other, 0.75 - 0.15 * distance - (other[0] === word[0] ? 0 : 0.1)]);
      }
    }
    return most ? found : [];
  }

  // Edits with swapped neighbours as one; more than `most` is not counted out.
  function edits(a, b, most) {
    let before = [];
    let row = Array.from({ length: b.length + 1 }, (_, i) => i);
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      let least = i;
      for (let j = 1; j <= b.length; j++) {
        next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
        if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
          next[j] = Math.min(next[j], before[j - 2] + 1);
        }
        least = Math.min(least, next[j]);
      }
      if (least > most) return most + 1;
      before = row;
      row = next;
    }
    return row[b.length];
  }

  // --- Names: titles, headings, aliases, terms, snippets ------------------------------------

  // Record → how well the whole query is one of its names.
  function namedBy(owner, key) {
    const found = new Map();
    const take = function (records, quality, name) {
      for (const [record, given] of records) {
        const weight = quality < 1 ? given * (record.kind === "c" ? 0.65 : /[1t]/.test(record.kind) ? 1 : 0.8) : given;
        if (!(found.get(record) && found.get(record).score >= quality * weight)) {
          found.set(record, { score: quality * weight, name });
        }
      }
    };
    if (!key) return found;
    if (owner.names.has(key)) take(owner.names.get(key), 1, key);
    if (key.length > 1) {
      for (const [name, records] of owner.names) {
        if (name === key) continue;
        if (name.startsWith(key)) take(records, 0.4 + 0.4 * key.length / name.length, name);
        else if (name.includes(key)) take(records, 0.2 + 0.4 * key.length / name.length, name);
        else if (name.length > 2 && key.includes(name)) take(records, 0.45 * name.length / key.length, name);
      }
    }
    return found;
  }

  function spell(text) {
    return [...text].map((c) => readings.get(c) || c).join("");
  }

  // The name that a query with an unknown word most likely means: by a few edits, or by its sound,
  // kongdongjuanji, kdjj, and 空动卷机 for 空洞卷积.
  function corrected(owner, key, least) {
    const han = HAN.test(key);
    const most = allowed(key.length, han);
    let best = { quality: least };
    const take = function (name, quality) {
      const weight = Math.max(...[...owner.names.get(name)].map(([r, w]) => w * (/[1tc]/.test(r.kind) ? 1 : 0.85)));
      if (quality * weight > best.quality) best = { name, quality: quality * weight };
    };
    for (const name of most ? owner.names.keys() : []) {
      if (Math.abs(name.length - key.length) > most || HAN.test(name) !== han) continue;
      if (han && key.includes(name)) continue; // nothing to correct: there is more in the query
      const distance = edits(key, name, most);
      if (distance <= most) take(name, 0.9 - 0.1 * distance - (name[0] === key[0] ? 0 : 0.08));
    }
    if (readings) soundAlikes(owner, key, han, take);
    return best.name;
  }

  function soundAlikes(owner, key, han, take) {
    if (!owner.spelled) {
      owner.spelled = [...owner.names.keys()].filter((name) => HAN.test(name)).map((name) => (
        { name, sound: spell(name), initials: [...name].map((c) => (readings.get(c) || c)[0]).join("") }
      ));
    }
    const sound = spell(key);
    if (sound.length < 2) return;
    for (const { name, sound: whole, initials } of owner.spelled) {
      if (whole === sound) take(name, 0.98);
      else if (!han && initials === sound) take(name, 0.85);
      else if (sound.length > 3 && whole.startsWith(sound)) take(name, 0.5 + 0.35 * sound.length / whole.length);
      else if (!han && sound.length > 2 && initials.startsWith(sound)) take(name, 0.45 + 0.3 * sound.length / initials.length);
      else if (sound.length > 6 && edits(sound, whole, 1) < 2) take(name, 0.75);
    }
  }

  // A word typed by its sound that is no name: quanzhong for 权重.
  function soundsLike(owner, token) {
    if (!owner.sounds) {
      owner.sounds = new Map();
      for (const word of owner.sorted) {
        if (!HAN.test(word[0])) continue;
        const sound = spell(word);
        if (!owner.sounds.has(sound)) owner.sounds.set(sound, []);
        owner.sounds.get(sound).push(word);
      }
    }
    return owner.sounds.get(spell(token.text)) || [];
  }

  // --- Ranking -----------------------------------------------------------------------------

  function doubtful(token) {
    return !token.parts && (token.guessed || Math.max(0, ...token.options.values()) < 0.55);
  }

  function rarity(count, all) {
    return 0.3 + Math.log(1 + (all - count + 0.5) / (count + 0.5));
  }

  // What a query finds in one language, or which pages' texts are needed to tell.
  function search(language, query) {
    const owner = books[language];
    if (!owner) return { need: [{ language }] };
    let tokens = analyse(owner, query);
    let key = squeezed(core(owner, query));
    let instead;
    const whole = squeezed(normal(query));
    // 也 only points, but in 感受也 it is a slip for 野.
    const slip = HAN.test(whole) && whole.length < 5 && key.length < whole.length && key.length > 1;
    if ((tokens.some(doubtful) || slip) && !owner.names.has(key) && !owner.names.has(whole)) {
      if (!readings) return { need: [{ characters: true, language: "zh" }] };
      const said = tokens.length === 1 && !slip ? soundsLike(owner, tokens[0]) : [];
      const name = corrected(owner, slip ? whole : key, said.length ? 0.84 : slip ? 0.75 : 0.45);
      if (name) {
        instead = owner.written.get(name);
        tokens = analyse(owner, instead);
        key = name;
      } else if (said.length) {
        instead = said.sort((a, b) => owner.words.get(b).size - owner.words.get(a).size)[0];
        tokens = analyse(owner, instead);
        key = instead;
      } else {
        for (const token of tokens.filter(doubtful)) {
          for (const word of soundsLike(owner, token)) token.options.set(word, 0.8);
        }
      }
    }
    const ways = [{ tokens, key, weight: 1 }, ...otherNames(owner, key)];
    const best = new Map(); // page → its entry in the reading that suits it best
    for (const reading of ways) {
      weigh(owner, reading);
      for (const page of owner.pages) {
        const score = reading.weight * pageScore(owner, page, reading);
        if (score > 0 && !(best.get(page) >= score)) best.set(page, score);
      }
    }
    const order = [...best].sort((a, b) => b[1] - a[1]).slice(0, PAGES_READ);
    const ranked = order.filter(([, score]) => score > 0.22 * order[0][1]);
    const need = ranked.filter(([page]) => !page.ready).map(([page]) => ({ language, page: page.number }));
    if (need.length) return { need };
    const records = ranked.flatMap(([page, score]) => page.records.map((record) => ({ record, pageScore: score })));
    const codelike = /[a-z]_[a-z]|[a-z]\.[a-z]|[A-Za-z][A-Z]+[a-z]/.test(query);
    const raw = normal(query);
    const found = new Map();
    for (const reading of ways) {
      for (const entry of rank(owner, records, reading, codelike, raw)) {
        const abroad = reading.home !== undefined && entry.record.page.number !== reading.home && entry.record.kind !== "t";
        entry.score *= reading.weight * (abroad ? 0.4 : 1); // the same word may name another thing elsewhere
        if (!(found.get(entry.record) && found.get(entry.record).score >= entry.score)) found.set(entry.record, entry);
      }
    }
    // Words of a term's other names are marked where they stand for what was typed in the other language.
    const translated = HAN.test(raw) !== (language === "zh");
    const shown = ways.filter((reading) => reading.weight === 1 || translated || reading.tokens.length === 1);
    const words = [...new Set(shown.flatMap((reading) => marked(reading.tokens, reading.named)))];
    return { results: ordered([...found.values()]), words, tokens, instead };
  }

  // A term's other names lead to the same place: who types 误差矩阵 is shown where 混淆矩阵 is explained.
  function otherNames(owner, key) {
    const found = [];
    for (const [record, weight] of owner.names.get(key) || []) {
      if (record.kind !== "t" || weight < 0.9) continue;
      for (const name of [record.title, ...record.names]) {
        if (HAN.test(name) !== (owner.language === "zh") && /\s/.test(name)) continue; // a phrase of the other language
        const tokens = analyse(owner, name);
        const other = squeezed(core(owner, name));
        if (other !== key && tokens.length && tokens.every((t) => t.options.get(t.text) === 1)) {
          found.push({ tokens, key: other, weight: 0.85, home: record.home });
        }
      }
    }
    return found.slice(0, 6);
  }

  function weigh(owner, reading) {
    reading.named = namedBy(owner, reading.key);
    for (const token of reading.tokens) {
      const on = new Set();
      for (const word of token.options.keys()) for (const page of (owner.words.get(word) || new Map()).keys()) on.add(page);
      token.rarity = rarity(token.options.size || token.parts ? on.size : 0, owner.pages.length);
      if (token.single) token.rarity *= 0.5;
      // What the site has a name for matters more than the words around it, however often it occurs.
      token.name = [token.text, ...token.options.keys()].some((word) => (token.options.get(word) || 0) >= 0.9 && owner.terms.has(squeezed(word)));
      if (token.name) token.rarity = 1.6 * Math.max(token.rarity, 1);
    }
    reading.whole = reading.tokens.reduce((sum, t) => sum + t.rarity, 0) || 1;
  }

  // By score; but a term stands behind the article that explains it.
  function ordered(entries) {
    entries.sort((a, b) => b.score - a.score || a.record.page.number - b.record.page.number || a.record.index - b.record.index);
    const floor = entries.length ? entries[0].score * 0.12 : 0;
    const kept = entries.filter((entry) => entry.score >= floor);
    for (const term of kept.filter((entry) => entry.record.home !== undefined)) {
      const at = kept.indexOf(term);
      const article = kept.findIndex((entry) => entry.record.page.number === term.record.home);
      if (article > at && kept[article].score > 0.3 * term.score) {
        kept.splice(at, 0, ...kept.splice(article, 1));
      }
    }
    return kept;
  }

  function pageScore(owner, page, { tokens, whole, named, key }) {
    let score = 0;
    let seen = 0;
    for (const token of tokens) {
      let best = 0;
      let sure = 0;
      for (const [word, weight] of token.options) {
        const level = owner.words.has(word) ? owner.words.get(word).get(page.number) : undefined;
        if (level !== undefined) {
          best = Math.max(best, weight * (1 + 0.5 * level));
          sure = Math.max(sure, weight);
        }
      }
      if (token.parts) {
        const share = token.parts.filter((p) => owner.words.get(p).has(page.number)).length / token.parts.length;
        best = Math.max(best, 0.7 * share);
        sure = Math.max(sure, 0.7 * share);
      }
      score += best * token.rarity;
      seen += Math.min(1, sure * 1.15) * token.rarity;
    }
    const coverage = seen / whole;
    let bonus = 0;
    for (const [record, how] of named) {
      if (record.page === page) bonus = Math.max(bonus, how.score * (record.kind === "1" ? 1.15 : 1));
    }
    const self = named.get(page.records[0]);
    // 线性注意力一定更快吗 names the page, whatever the other words.
    const text = coverage >= (self && key.includes(self.name) ? 0.6 * LEAST : LEAST) ? score * coverage * coverage : 0;
    return (text + (bonus > 0.4 || text ? 8 * bonus : 0)) * (page.kind === "a" ? 1 : 0.6);
  }

  function prepare(record) {
    if (record.counts) return;
    record.plain = normal(record.text);
    record.far = normal(record.hidden || "");
    record.counts = wordCounts(record.plain);
    record.plainTitle = normal(record.title);
    record.inTitle = wordCounts(record.plainTitle);
    record.inHidden = wordCounts(record.far);
    record.called = record.names.map(normal).join(" \n ");
    record.inNames = wordCounts(record.called);
    record.length = record.plain.length / (HAN.test(record.plain) ? 1.7 : 5.5);
    record.squeezed = squeezed(record.plain);
  }

  function wordCounts(text) {
    const counts = new Map();
    for (const run of text.match(/[a-z0-9_]+(?:\.[a-z0-9_]+)*/g) || []) {
      for (const piece of new Set([run, ...run.split("."), ...run.split(/[._]+/)])) {
        if (piece) counts.set(stem(piece), (counts.get(stem(piece)) || 0) + 1);
      }
    }
    return counts;
  }

  function times(text, part) {
    let count = 0;
    for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count++;
    return count;
  }

  function count(text, counts, word) {
    return HAN.test(word[0]) ? times(text, word) : counts.get(word) || 0;
  }

  const WHICH = /哪种|哪个|哪一|怎么选|如何选|该用|which|choose|should i use/;
  const PRIOR = { 1: 1.1, 2: 1, 3: 1.05, 4: 1, c: 0.7, t: 0.38, r: 0.75 };

  function rank(owner, entries, { tokens, named, key, weight }, codelike, raw) {
    const typed = weight === 1; // and not another name of what was typed
    for (const { record } of entries) prepare(record);
    for (const token of tokens) {
      token.found = entries.map(({ record }) => fieldScore(record, token));
      token.local = 0.4 * token.rarity + rarity(token.found.filter((f) => f.sure > 0).length, entries.length);
      if (token.single) token.local *= 0.5;
      if (token.name) token.local = 1.6 * Math.max(token.local, 2.4);
    }
    const total = tokens.reduce((sum, t) => sum + t.local, 0) || 1;
    const phrase = tokens.length > 1 ? squeezed(tokens.map((t) => t.text).join("")) : "";
    const said = new Set(raw.match(/[a-z0-9]+/g) || []);
    // A whole saying or title, small words and all: "Attention is all you need".
    const whole = squeezed(raw);
    const sentence = whole !== key && !owner.names.has(whole) && (said.size > 2 || (HAN.test(whole) && whole.length > 5)) ? whole : "";
    return entries.map(function ({ record, pageScore }, number) {
      let score = 0;
      let seen = 0;
      let direct = 0;
      let titled = 0;
      for (const token of tokens) {
        const own = token.found[number];
        const page = fieldScore(record.page.records[0], token, true);
        score += (own.score + 0.4 * page.sure) * token.local;
        seen += Math.max(own.sure, 0.8 * page.sure) * token.local;
        direct += own.sure * token.local;
        titled += page.sure * token.local;
      }
      const coverage = seen / total;
      let value = coverage >= LEAST && direct > 0 ? score * Math.pow(coverage, 3) : 0;
      if (phrase && record.squeezed.includes(phrase)) value *= 1.35;
      if (phrase && squeezed(record.plainTitle).includes(phrase)) value *= 1.6;
      const how = named.get(record);
      if (how) value += 26 * how.score * how.score;
      if (value > 0 && /[2-4]/.test(record.kind) && !record.guest) {
        value += coverage * coverage * 12 * sharedTitle(record, tokens, raw, said);
      }
      if (record.id === "choosing" && WHICH.test(raw)) value += 80 * titled * titled / (total * total);
      if (sentence && (record.squeezed + squeezed(record.far)).includes(sentence)) value += 40;
      value *= record.kind !== "c" ? PRIOR[record.kind] : codelike ? 1.2 : typed && how && how.score > 0.9 ? 0.85 : PRIOR.c;
      if (record.minor) value *= 0.75;
      if (record.page.kind === "n") value *= tokens.some((t) => count(record.far, record.inHidden, t.text)) ? 1.5 : 0.35;
      else if (record.page.kind !== "a") value *= 0.75;
      return { record, score: value > 0 ? value + 0.6 * pageScore : 0, coverage, how };
    }).filter((entry) => entry.score > 0);

    function fieldScore(record, token, titleOnly) {
      prepare(record);
      let best = 0;
      let sure = 0;
      if (token.single && record.plainTitle.includes(token.text)) return { score: 1.6, sure: 1 };
      const options = token.parts ? token.parts.map((p) => [p, 0.7 / token.parts.length]) : token.options;
      let sum = 0;
      for (const [word, weight] of options) {
        const inTitle = count(record.plainTitle, record.inTitle, word);
        const inNames = /[1-4t]/.test(record.kind) ? count(record.called, record.inNames, word) : 0;
        let value = inTitle ? 3.6 / (1 + 0.15 * Math.max(0, record.plainTitle.length / (HAN.test(word) ? 2.5 : 7) - 1)) : 0;
        if (inNames) value = Math.max(value, 2);
        if (!titleOnly) {
          if (count(record.far, record.inHidden, word)) value = Math.max(value, /[1c]/.test(record.kind) ? 0.8 : 1.5);
          const n = count(record.plain, record.counts, word);
          if (n) value += 2.2 * n / (n + 1.2 * (0.4 + 0.6 * record.length / 90));
        }
        best = Math.max(best, value * weight);
        if (value) {
          sure = Math.max(sure, Math.min(1, weight * 1.1));
          sum += value * weight;
        }
      }
      if (token.pieces && !best) {
        const apart = token.pieces.map((p) => fieldScore(record, { text: p, options: new Map([[p, 1]]) }, titleOnly));
        if (apart.every((f) => f.sure)) return { score: 0.6 * Math.min(...apart.map((f) => f.score)), sure: 0.6 };
      }
      if (token.parts) return { score: sum, sure: Math.min(1, sum && options.filter(([w]) => count(record.plain + record.far, record.counts, w) || count(record.far, record.inHidden, w) || count(record.plainTitle, record.inTitle, w)).length / options.length) };
      return { score: best, sure };
    }
  }

  // Headings are made of small words too: 用在哪里, "When not to use it". How much of one was typed?
  function sharedTitle(record, tokens, raw, said) {
    if (HAN.test(record.plainTitle)) {
      const title = squeezed(record.plainTitle);
      // 注意力 is no heading that was typed in 线性注意力.
      const within = tokens.some((token) => token.text.length > title.length && token.text.includes(title));
      return title.length > 2 && !within && squeezed(raw).includes(title)
        ? Math.min(1.6, title.length / 2.5) + (title.length > 0.7 * squeezed(raw).length ? 1.5 : 0) : 0;
    }
    const title = record.plainTitle.match(/[a-z0-9]+/g) || [];
    const share = title.filter((word) => said.has(word)).length / title.length;
    return title.length > 2 && share >= 0.6 ? share + (share === 1 && title.length > 0.5 * said.size ? 1.5 : 0) : 0;
  }

  // Strings to mark in what is shown.
  function marked(tokens, named) {
    const found = new Set();
    for (const token of tokens) {
      if (token.han) found.add(token.text);
      for (const [word, weight] of token.options) if (weight > 0.3) found.add(word);
      for (const part of token.parts || []) found.add(part);
    }
    for (const [record, how] of named) {
      if (how.score > 0.5) found.add(how.name);
      // Found by another name: what it is called here is the hit as well.
      if (how.score > 0.85) for (const part of core(record.page.book, record.title).split(" ")) found.add(part);
    }
    return [...found].filter(Boolean);
  }

  // --- What is shown -----------------------------------------------------------------------

  // Normal form of a text with the place each of its characters came from.
  function mapped(text) {
    let plain = "";
    const from = [];
    let at = 0;
    for (const character of text) {
      for (const c of normal(character)) {
        plain += c;
        from.push(at);
      }
      at += character.length;
    }
    from.push(text.length);
    return { plain, from };
  }

  // Ranges of a text that the words hit: whole words in Latin script, any place in Chinese.
  function hits(text, words) {
    const { plain, from } = mapped(text);
    const ranges = [];
    const latin = new Set(words.filter((w) => !HAN.test(w)));
    for (const match of plain.matchAll(/[a-z0-9]+(?:[._][a-z0-9]+)*/g)) {
      const pieces = [match[0], stem(match[0]), ...match[0].split(/[._]/).map(stem), squeezed(match[0])];
      if (pieces.some((piece) => latin.has(piece))) {
        ranges.push([from[match.index], from[match.index + match[0].length]]);
      }
    }
    for (const word of words) {
      if (!HAN.test(word)) continue;
      for (let at = plain.indexOf(word); at >= 0; at = plain.indexOf(word, at + 1)) {
        ranges.push([from[at], from[at + word.length], word]);
      }
    }
    ranges.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
    const merged = [];
    for (const range of ranges) {
      const last = merged[merged.length - 1];
      if (last && range[0] <= last[1]) last[1] = Math.max(last[1], range[1]);
      else merged.push([range[0], range[1]]);
    }
    return merged;
  }

  // The sentence that the query hits most, cut to a line or two around its first hit.
  function excerpt(record, words, longest) {
    const sentences = record.kind === "r" ? [record.text] : record.text.split(/(?<=[。！？；])|\n|(?<=[a-z0-9)\]"”’]{2}[.!?])\s+(?=[A-Z“"(])/);
    let best = { score: -1, text: "" };
    for (const sentence of sentences) {
      const text = sentence.trim();
      if (!text) continue;
      const found = hits(text, words);
      const distinct = new Set(found.map(([a, b]) => normal(text.slice(a, b))));
      const score = distinct.size * 3 + Math.min(2, found.length);
      if (score > best.score) best = { score, text, found };
    }
    if (!best.text) return { text: "", ranges: [] };
    let { text, found } = best;
    if (text.length > longest) {
      const first = found.length ? found[0][0] : 0;
      let start = Math.max(0, Math.min(first - Math.floor(longest / 3), text.length - longest));
      while (start > 0 && /[a-z0-9]/i.test(text[start - 1]) && /[a-z0-9]/i.test(text[start])) start--;
      let end = Math.min(text.length, start + longest);
      while (end < text.length && /[a-z0-9]/i.test(text[end - 1]) && /[a-z0-9]/i.test(text[end])) end++;
      text = (start ? "…" : "") + text.slice(start, end).trim() + (end < text.length ? "…" : "");
      found = hits(text, words);
    }
    return { text, ranges: found };
  }

  // What to try instead: the names that are nearest, then the articles.
  function suggestions(language, query) {
    const owner = books[language];
    const key = squeezed(core(owner, query));
    const near = [];
    for (const [name, records] of owner.names) {
      const record = [...records.keys()][0];
      if (!/[1tc]/.test(record.kind) || Math.abs(name.length - key.length) > 4) continue;
      const most = Math.max(1, Math.floor(key.length / 2));
      const distance = edits(key, name, most);
      if (distance <= most) near.push([distance, record.title]);
    }
    near.sort((a, b) => a[0] - b[0]);
    const articles = owner.pages.filter((p) => p.kind === "a").map((p) => p.title);
    return [...new Set([...near.slice(0, 2).map((n) => n[1]), ...articles])].slice(0, 10);
  }

  return { add, search, excerpt, hits, suggestions, books, normal, spell };
})();
if (typeof globalThis !== "undefined") globalThis.ProvenSearch = ProvenSearch;
