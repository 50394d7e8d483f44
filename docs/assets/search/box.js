"use strict";

// The search box: asks the engine as one types, loads what it needs, shows results as a listbox.
(function () {
  const root = document.querySelector("[data-search]");
  const words = root.querySelector("[data-search-words]").dataset;
  const input = root.querySelector("input");
  const list = root.querySelector("[role=listbox]");
  const status = root.querySelector("[role=status]");
  const toggle = document.getElementById("__search");
  const home = new URL(root.dataset.base, location.href);
  const language = document.documentElement.lang;
  const other = language === "zh" ? "en" : "zh";
  const SHOWN = 12; // results in the reader's language
  const ELSEWHERE = 4; // and in the other one
  let asked = 0;
  let active = -1;
  let entering = false; // Enter was pressed before the results were there

  // --- Loading -----------------------------------------------------------------------------

  const loaded = new Map();
  function load(need) {
    const file = need.characters ? "characters.js" : need.page === undefined ? "index.js" : `text-${need.page}.js`;
    const url = new URL(`../${need.language}/search/${file}`, home).href;
    if (!loaded.has(url)) {
      loaded.set(url, new Promise(function (resolve, reject) {
        const script = document.createElement("script");
        script.src = url;
        script.onload = resolve;
        script.onerror = function () {
          loaded.delete(url); // to be tried again with the next key
          script.remove();
          reject(new Error(url));
        };
        document.head.append(script);
      }));
    }
    return loaded.get(url);
  }

  // --- Asking ------------------------------------------------------------------------------

  async function ask() {
    const mine = ++asked;
    const query = input.value.trim();
    remember(query);
    if (!query) {
      show([]);
      status.textContent = words.hint;
      root.dataset.shown = "";
      return;
    }
    try {
      const here = await answer(language, query, mine);
      if (!here) return;
      showAnswer(here, query);
      if (here.results.length) settle(query);
      if (concernsOther(query, here)) {
        const there = await answer(other, query, mine);
        if (!there) return;
        if (there.results.length) showElsewhere(there, here);
      }
      settle(query);
    } catch (error) {
      if (mine === asked) status.textContent = words.failed;
    }
  }

  // The engine's answer, or nothing when another question has been asked meanwhile.
  // Where all is loaded this does not wait, so results stand in the frame of the key.
  function answer(la, query, mine) {
    const found = ProvenSearch.search(la, query);
    if (!found.need) return found;
    if (!list.children.length) status.textContent = words.loading;
    return Promise.all(found.need.map(load)).then(() => (mine === asked ? answer(la, query, mine) : null));
  }

  // The other language is looked up when its words are typed, or when this one has nothing.
  function concernsOther(query, here) {
    if (!here.results.length) return true;
    return language === "en" ? /[\u3400-\u9fff]/.test(query) : /(^|[^a-z_.])[a-z]{4,}($|[^a-z_.\d])/i.test(query);
  }

  // --- Showing -----------------------------------------------------------------------------

  function showAnswer(found, query) {
    const results = found.results.slice(0, SHOWN);
    show(results.map((result) => option(result.record, found.words, language)));
    if (results.length) {
      tell(found);
      choose(0);
    } else {
      status.textContent = words.none.replace("#", query);
      show(ProvenSearch.suggestions(language, query).map(suggestion));
    }
  }

  // What was asked is shown; who pressed Enter before now gets the first result.
  function settle(query) {
    root.dataset.shown = query;
    if (entering && active >= 0) open(options()[active]);
    entering = false;
  }

  function showElsewhere(there, here) {
    if (!here.results.length) show([]); // in place of what was suggested
    const group = element("div", "search-group");
    group.setAttribute("role", "group");
    const heading = element("p", "search-elsewhere", words.elsewhere);
    heading.id = "search-elsewhere";
    group.setAttribute("aria-labelledby", heading.id);
    group.append(heading, ...there.results.slice(0, ELSEWHERE).map((result) => option(result.record, there.words, other)));
    list.append(group);
    number();
    input.setAttribute("aria-expanded", "true");
    tell(here.results.length ? here : there);
    if (active < 0) choose(0);
  }

  function tell(found) {
    const count = options().length;
    const instead = found.instead ? words.instead.replace("#", found.instead) : "";
    status.textContent = instead + (count === 1 ? words.one : words.many.replace("#", count));
  }

  function show(options) {
    list.replaceChildren(...options);
    number();
    choose(-1);
    input.setAttribute("aria-expanded", String(options.length > 0));
    list.parentElement.scrollTop = 0;
  }

  function number() {
    options().forEach((option, index) => { option.id = `search-option-${index}`; });
  }

  function option(record, marks, la) {
    const link = element("a", "search-hit");
    link.setAttribute("role", "option");
    link.tabIndex = -1;
    link.href = address(record, la);
    if (la !== language) {
      link.lang = link.hreflang = la;
    }
    const kind = record.page.kind === "n" ? "n" : record.kind;
    const path = kind === "t" ? [words.glossary] : record.kind === "1" ? [] : [record.page.title, ...record.under];
    if (path.length) link.append(element("span", "search-path", path.join(" › ")));
    const title = element("span", kind === "c" ? "search-title search-code" : "search-title");
    mark(title, record.title, ProvenSearch.hits(record.title, marks));
    link.append(title);
    if (words[kind]) link.append(element("span", "search-kind", words[kind]));
    const excerpt = ProvenSearch.excerpt(record, marks, la === "zh" ? 90 : 170);
    if (excerpt.text) {
      const text = element("span", "search-text");
      mark(text, excerpt.text, excerpt.ranges);
      link.append(text);
    }
    return link;
  }

  function address(record, la) {
    const folder = new URL(`../${la}/${record.page.url}`, home);
    const file = folder.protocol === "file:" ? "index.html" : ""; // a folder has no server to find it
    return folder.href + file + (record.id ? `#${record.id}` : "");
  }

  function suggestion(text) {
    const link = element("a", "search-hit search-suggestion");
    link.setAttribute("role", "option");
    link.tabIndex = -1;
    link.href = `?q=${encodeURIComponent(text)}`;
    link.dataset.query = text;
    link.append(element("span", "search-title", text));
    return link;
  }

  function mark(holder, text, ranges) {
    let at = 0;
    for (const [from, to] of ranges) {
      if (from < at) continue;
      holder.append(text.slice(at, from), element("mark", "", text.slice(from, to)));
      at = to;
    }
    holder.append(text.slice(at));
  }

  function element(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text) made.textContent = text;
    return made;
  }

  // --- Choosing and opening ----------------------------------------------------------------

  function options() {
    return [...list.querySelectorAll("[role=option]")];
  }

  function choose(index) {
    const all = options();
    active = all.length ? Math.max(-1, Math.min(index, all.length - 1)) : -1;
    all.forEach((option, at) => option.setAttribute("aria-selected", String(at === active)));
    if (active < 0) {
      input.removeAttribute("aria-activedescendant");
    } else {
      input.setAttribute("aria-activedescendant", all[active].id);
      all[active].scrollIntoView({ block: "nearest" });
    }
  }

  function open(link, apart) {
    if (link.dataset.query !== undefined) {
      input.value = link.dataset.query;
      input.focus();
      ask();
    } else if (apart) {
      window.open(link.href, "_blank", "noopener");
    } else if (sameDocument(link.href)) {
      close();
      location.hash = new URL(link.href).hash;
    } else {
      remember(input.value.trim(), true); // so that going back shows these results again
      location.href = link.href;
    }
  }

  function sameDocument(href) {
    const url = new URL(href);
    return url.pathname === location.pathname && url.hash !== "";
  }

  function close() {
    if (toggle.checked) toggle.click();
    input.blur();
    remember("", true);
  }

  // The query is in the address, so that it can be shared and gone back to. Browsers refuse
  // many changes in a row, so it is written when the typing pauses.
  let writing = 0;
  function remember(query, now) {
    clearTimeout(writing);
    const write = function () {
      const url = new URL(location.href);
      if (query) url.searchParams.set("q", query);
      else url.searchParams.delete("q");
      if (url.href !== location.href) history.replaceState(history.state, "", url);
    };
    if (now) write();
    else writing = setTimeout(write, 250);
  }

  // --- Events ------------------------------------------------------------------------------

  input.addEventListener("input", (event) => { if (!event.isComposing) ask(); });
  input.addEventListener("compositionend", ask);
  input.addEventListener("focus", opened);
  input.addEventListener("keydown", function (event) {
    if (event.isComposing || event.keyCode === 229) return; // this key belongs to the input method
    const count = options().length;
    if (event.key === "ArrowDown" && count) choose((active + 1) % count);
    else if (event.key === "ArrowUp" && count) choose((active - 1 + count) % count);
    else if (event.key === "Escape") close();
    else if (event.key === "Enter") {
      if (root.dataset.shown === input.value.trim() && active >= 0) open(options()[active], event.ctrlKey || event.metaKey);
      else entering = true;
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  root.querySelector("form").addEventListener("reset", () => setTimeout(function () {
    ask();
    input.focus();
  }));
  list.addEventListener("click", function (event) {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    open(link);
  });
  list.addEventListener("mousemove", function (event) {
    const at = options().indexOf(event.target.closest("[role=option]"));
    if (at >= 0 && at !== active) choose(at);
  });
  toggle.addEventListener("change", function () {
    if (toggle.checked) input.focus();
    else {
      input.blur();
      remember("", true);
    }
  });

  function opened() {
    if (!toggle.checked) toggle.click();
    load({ language }).catch(() => { status.textContent = words.failed; });
  }

  const given = new URL(location.href).searchParams.get("q");
  if (given && !input.value) input.value = given;
  if (document.activeElement === input || given) {
    input.focus();
    opened();
  }
  if (input.value.trim()) ask();
})();
