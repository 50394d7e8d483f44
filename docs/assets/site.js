"use strict";

// Colours: as the system says, until the reader chooses; the page's first script has set them before drawing.
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", function () {
    let chosen = null;
    try { chosen = localStorage.getItem("scheme"); } catch (error) { /* storage may be disabled */ }
    if (!chosen) document.body.dataset.mdColorScheme = dark.matches ? "slate" : "default";
  });
}
document.addEventListener("click", function (event) {
  const button = event.target.closest("button[data-scheme]");
  if (!button) return;
  document.body.dataset.mdColorScheme = button.dataset.scheme;
  document.querySelector(`button[data-scheme]:not([data-scheme="${button.dataset.scheme}"])`).focus();
  try { localStorage.setItem("scheme", button.dataset.scheme); } catch (error) { /* for this page only */ }
});

// The theme's switches are labels of hidden boxes: a key must do what a click does, Escape closes.
document.addEventListener("keydown", function (event) {
  if ((event.key === "Enter" || event.key === " ") && event.target.matches("label[tabindex]")) {
    event.preventDefault();
    event.target.click();
  } else if (event.key === "Escape") {
    document.getElementById("__drawer").checked = false;
  }
});

// Scrolling: the contents mark the section being read, the header names the page once its title
// has gone, the button to the top shows when the reader turns back.
{
  const contents = [...document.querySelectorAll(".md-sidebar--secondary .md-nav__link[href^='#']")].map(
    (link) => [link, document.getElementById(decodeURIComponent(link.hash.slice(1)))]);
  const title = document.querySelector("article h1");
  const headerTitle = document.querySelector("[data-md-component=header-title]");
  const toTop = document.querySelector("[data-md-component=top]");
  let scrolledFrom = scrollY, waiting = false;
  function scrolled() {
    waiting = false;
    const reading = contents.filter(([, head]) => head && head.getBoundingClientRect().top < 100).pop();
    for (const [link] of contents) {
      const active = Boolean(reading) && link === reading[0];
      if (active === link.classList.contains("md-nav__link--active")) continue;
      link.classList.toggle("md-nav__link--active", active);
      if (active) {
        const pane = link.closest(".md-sidebar__scrollwrap");
        pane.scrollTop = link.getBoundingClientRect().top - pane.getBoundingClientRect().top + pane.scrollTop - pane.clientHeight / 2;
      }
    }
    headerTitle.classList.toggle("md-header__title--active", Boolean(title) && title.getBoundingClientRect().bottom < 48);
    toTop.hidden = scrollY < 400 || scrollY >= scrolledFrom;
    scrolledFrom = scrollY;
  }
  addEventListener("scroll", function () {
    if (!waiting) requestAnimationFrame(scrolled);
    waiting = true;
  }, { passive: true });
  toTop.addEventListener("click", () => scrollTo(0, 0));
  scrolled();
}

// Copy: the snippet's text is what is shown; the stand-alone form waits in a template.
document.addEventListener("click", async function (event) {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const block = button.closest(".snippet");
  const source = button.dataset.copy === "snippet"
    ? block.querySelector("pre code").textContent
    : standAlone(block);
  let done = true;
  try {
    await navigator.clipboard.writeText(source);
  } catch (error) {
    done = copyBySelection(source);
  }
  const words = document.getElementById("site-words").dataset;
  announce(done ? words.copied : words.copyFailed);
  if (done) {
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
  }
});

// A published page names the parts of this form that it holds elsewhere: a block shown, or a part shared.
function standAlone(block) {
  const shared = document.querySelector("template[data-parts]");
  const text = function (node) {
    if (!node.dataset) return node.textContent;
    if (node.dataset.part) return shared.content.children[node.dataset.part].textContent;
    return document.getElementById(node.dataset.shown).querySelector("pre code").textContent.replace(/\n$/, "");
  };
  return [...block.querySelector("template[data-standalone]").content.childNodes].map(text).join("");
}

// A line of code has an address, #code-NAME-LINE; an anchor in each line would cost a page 4 KB.
function toLine() {
  const [, name, number] = /^#(code-.+)-([1-9]\d*)$/.exec(location.hash) || [];
  const code = document.getElementById(name)?.querySelector("pre code");
  const lines = code ? code.textContent.split("\n").slice(0, number) : [];
  CSS.highlights?.delete("line");
  if (lines.length !== Number(number)) return;
  const line = lines.pop();
  const start = lines.map((before) => before + "\n").join("").length;
  const range = new Range();
  const texts = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
  for (let at = 0; texts.nextNode(); at += texts.currentNode.length) {
    const inside = (place) => place >= at && place <= at + texts.currentNode.length;
    if (inside(start)) range.setStart(texts.currentNode, start - at);
    if (inside(start + line.length)) {
      range.setEnd(texts.currentNode, start + line.length - at);
      break;
    }
  }
  CSS.highlights?.set("line", new Highlight(range));
  const holder = code.parentElement;
  holder.scrollIntoView({ block: "start" });
  holder.scrollTop += range.getBoundingClientRect().top - holder.getBoundingClientRect().top - holder.clientHeight / 3;
  scrollBy(0, range.getBoundingClientRect().top - innerHeight / 3);
}
addEventListener("hashchange", toLine);
toLine();

// The clipboard interface exists only on secure origins; this works on plain ones and on files.
function copyBySelection(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "off-screen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function announce(message, seen) {
  const status = document.getElementById("site-status");
  status.textContent = "";
  status.classList.toggle("seen", Boolean(seen));
  requestAnimationFrame(() => { status.textContent = message; });
}

// Larger view of a figure; without JavaScript the link opens the image itself.
document.addEventListener("click", function (event) {
  const link = event.target.closest("a[data-enlarge]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const dialog = document.getElementById("site-viewer");
  const image = link.querySelector("img").cloneNode();
  image.removeAttribute("loading");
  dialog.querySelector("div").replaceChildren(image);
  dialog.showModal();
});
document.addEventListener("click", function (event) {
  const dialog = document.getElementById("site-viewer");
  if (dialog.open && (event.target === dialog || event.target.closest("#site-viewer button"))) dialog.close();
});

// A formula is copied as its TeX, not as the heap of signs it is drawn with.
document.addEventListener("copy", function (event) {
  const selection = getSelection();
  if (!selection.rangeCount || !event.clipboardData) return;
  const range = selection.getRangeAt(0).cloneRange();
  const whole = (node) => (node.nodeType === 1 ? node : node.parentElement).closest("[data-tex]");
  const [first, last] = [whole(range.startContainer), whole(range.endContainer)];
  if (first) range.setStartBefore(first);
  if (last) range.setEndAfter(last);
  const copied = range.cloneContents();
  const formulas = copied.querySelectorAll("[data-tex]");
  if (!formulas.length) return;
  for (const formula of formulas) {
    const [sign, gap] = formula.classList.contains("formula-display") ? ["$$", "\n"] : ["$", ""];
    formula.replaceWith(gap + sign + formula.dataset.tex + sign + gap);
  }
  const holder = document.createElement("div");
  holder.className = "off-screen copied-text";
  holder.append(copied);
  document.body.append(holder); // innerText keeps paragraphs apart only for what is laid out
  event.clipboardData.setData("text/plain", holder.innerText);
  holder.remove();
  event.preventDefault();
});

// Citing: the day of access is the reader's.
for (const day of document.querySelectorAll("[data-today]")) {
  day.textContent = `[${new Date().toISOString().slice(0, 10)}]`;
}

// Language: the switcher keeps the section being read, the root page remembers the choice.
document.addEventListener("click", function (event) {
  const link = event.target.closest("a[data-language]");
  if (!link) return;
  link.hash = location.hash || readingAt();
  try { localStorage.setItem("language", link.hreflang); } catch (error) { /* storage may be disabled */ }
});

function readingAt() {
  const heads = [...document.querySelectorAll("article h2[id], article h3[id]")];
  const passed = heads.filter((head) => head.getBoundingClientRect().top < 100);
  return passed.length && scrollY > 0 ? "#" + passed[passed.length - 1].id : "";
}

// Both languages side by side: fetched when the reader asks for it, or did so on an earlier page. Files
// cannot be fetched from files.
const parallel = document.querySelector("button[data-parallel]");
if (parallel) {
  parallel.hidden = location.protocol === "file:";
  const begin = function () {
    const script = document.createElement("script");
    script.src = parallel.dataset.parallel;
    script.onerror = function () {
      announce(parallel.dataset.failed, true);
      parallel.addEventListener("click", begin, { once: true });
    };
    document.head.append(script);
  };
  let kept = null;
  try { kept = localStorage.getItem("parallel"); } catch (error) { /* storage may be disabled */ }
  if (kept && !parallel.hidden && matchMedia("(min-width: 75em)").matches) begin();
  else parallel.addEventListener("click", begin, { once: true });
}

// Progress through an article, where style sheets cannot draw it.
const progress = document.querySelector(".progress");
if (progress && !CSS.supports("animation-timeline: scroll()")) {
  addEventListener("scroll", function () {
    const whole = document.documentElement.scrollHeight - innerHeight;
    progress.style.transform = `scaleX(${scrollY / whole})`;
  }, { passive: true });
}

// Search: nothing of it is loaded before the reader turns to it, by focus, by / or s, or by a link with a query.
const search = document.querySelector("[data-search]");
if (search) {
  const box = search.querySelector("input");
  let begun = false;
  const begin = function () {
    if (begun) return;
    begun = true;
    for (const name of ["engine.js", "box.js"]) {
      const script = document.createElement("script");
      script.src = search.dataset.assets + name;
      script.async = false; // in this order
      document.head.append(script);
    }
  };
  box.addEventListener("focus", begin);
  document.getElementById("__search").addEventListener("change", function () {
    if (this.checked) box.focus();
  });
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if ((event.key !== "/" && event.key !== "s") || event.target.closest("input:not([type=radio], [type=checkbox]), textarea, select, [contenteditable]")) return;
    event.preventDefault();
    box.focus();
    box.select();
  });
  if (new URL(location.href).searchParams.get("q")) begin();
}

// Catalogue: filter rows by name or docstring.
const filter = document.getElementById("catalogue-filter");
if (filter) {
  const rows = [...document.querySelectorAll("tr[data-entry]")];
  const status = filter.parentElement.querySelector("[role=status]");
  filter.addEventListener("input", function () {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => row.dataset.entry.includes(word));
      count += !row.hidden;
    }
    for (const section of document.querySelectorAll(".catalogue section")) {
      section.hidden = !section.querySelector("tr[data-entry]:not([hidden])");
    }
    status.textContent = status.dataset.template.replace("#", count);
  });
}

// The whole book is kept for reading without a network, once the page itself has come; not where the
// reader saves data. Files and plain http have no service workers.
if (navigator.serviceWorker && !(navigator.connection && navigator.connection.saveData)) {
  addEventListener("load", function () {
    const worker = document.getElementById("site-words").dataset.worker;
    if (worker) navigator.serviceWorker.register(worker).catch(() => { /* a private window: read online */ });
  });
}
