"use strict";

// Both languages side by side. The other language's page is fetched, its blocks are put beside those of
// this page they translate, and taken away again. Nothing of it bears an id, so links within the article
// lead to this page's own headings.
{
  const address = document.currentScript.src;
  const button = document.querySelector("button[data-parallel]");
  const article = document.querySelector("article");
  const here = document.documentElement.lang;
  const link = document.querySelector(`a[data-language]:not([hreflang="${here}"])`);
  const HEADS = "h2, h3, h4";
  // What is the same in both languages, or speaks of this page as a whole, is shown once.
  const ONCE = ".snippet, .evidence, .output, .reading, .progress, .cite";
  let theirs = null; // the other article, as it came
  let shown = false;

  button.addEventListener("click", () => set(!shown));
  set(true);

  async function set(wanted) {
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    try {
      if (wanted && !theirs) [theirs] = await Promise.all([other(), sheet()]);
      keepingPlace(() => (wanted ? show() : hide()));
      shown = wanted;
      button.setAttribute("aria-pressed", String(shown));
      document.getElementById("site-status").classList.remove("seen");
      try {
        if (shown) localStorage.setItem("parallel", "1");
        else localStorage.removeItem("parallel");
      } catch (error) { /* storage may be disabled */ }
    } catch (error) {
      announce(button.dataset.failed, true);
    }
    button.removeAttribute("aria-busy");
  }

  // The service worker keeps only the language that it serves; the other one may be kept beside it.
  async function other() {
    const url = link.href.split("#")[0];
    let response = await fetch(url).catch(() => null);
    if (!response && window.caches) response = await caches.match(url);
    if (!response || !response.ok) throw new Error(url);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return neutral(document.importNode(page.querySelector("article"), true), url);
  }

  function neutral(copy, url) {
    for (const node of copy.querySelectorAll("script, style, template, .headerlink, .snippet-copies")) node.remove();
    for (const node of copy.querySelectorAll("[id]")) {
      node.dataset.is = node.id;
      node.removeAttribute("id");
    }
    for (const name of ["href", "src"]) {
      for (const node of copy.querySelectorAll(`[${name}]`)) {
        const value = node.getAttribute(name);
        if (!value.startsWith("#")) node.setAttribute(name, new URL(value, url).href);
      }
    }
    return copy;
  }

  function sheet() {
    return new Promise(function (resolve, reject) {
      const element = document.createElement("link");
      element.rel = "stylesheet";
      element.href = address.replace(/\.js$/, ".css");
      element.onload = resolve;
      element.onerror = reject;
      document.head.append(element);
    });
  }

  function show() {
    document.documentElement.classList.add("parallel");
    const copy = theirs.cloneNode(true);
    const [left, right] = [sections(article), sections(copy)];
    for (const [id, blocks] of left) pair(blocks, right.get(id) || []);
  }

  function hide() {
    document.documentElement.classList.remove("parallel");
    for (const node of article.querySelectorAll(".parallel-other, .parallel-summary")) node.remove();
    for (const node of article.querySelectorAll(".parallel-own")) node.replaceWith(...node.childNodes);
    for (const node of article.querySelectorAll(".parallel-row")) node.replaceWith(...node.childNodes);
  }

  // The blocks under each heading, itself included; what precedes the first is under "".
  function sections(parent) {
    const found = new Map([["", []]]);
    let id = "";
    for (const block of parent.querySelectorAll(":scope > :not(template)")) {
      if (block.matches(HEADS)) id = block.id || block.dataset.is || id;
      if (!found.has(id)) found.set(id, []);
      found.get(id).push(block);
    }
    return found;
  }

  // Block beside block where both languages have the same ones, as they should; else all that stands
  // between two blocks shown once beside all of the other language's.
  function pair(left, right) {
    const kind = (block) => block.localName + "." + block.className;
    if (left.length === right.length && left.every((block, i) => kind(block) === kind(right[i]))) {
      left.forEach((block, i) => beside(block, right[i]));
    } else {
      const [ours, others] = [runs(left), runs(right)];
      ours.forEach((run, i) => row(run, i < ours.length - 1 ? others[i] || [] : others.slice(i).flat()));
    }
  }

  function runs(blocks) {
    const found = [[]];
    for (const block of blocks) {
      if (!block.matches(ONCE)) found[found.length - 1].push(block);
      else if (found[found.length - 1].length) found.push([]);
    }
    return found[found.length - 1].length ? found : found.slice(0, -1);
  }

  function beside(own, theirs) {
    if (own.matches(ONCE)) return;
    if (own.matches("details")) {
      pair([...own.children].slice(1), [...theirs.children].slice(1));
      own.firstElementChild.append(translated("span", "parallel-summary", [theirs.firstElementChild.textContent]));
    } else {
      row([own], [theirs]);
    }
  }

  function row(left, right) {
    for (const block of right) block.querySelectorAll(ONCE).forEach((node) => node.remove());
    const holder = document.createElement("div");
    holder.className = "parallel-row";
    const own = document.createElement("div");
    own.className = "parallel-own";
    left[0].before(holder);
    own.append(...left);
    holder.append(own, translated("div", "parallel-other", right.map(untitled)));
  }

  function translated(name, style, content) {
    const element = document.createElement(name);
    element.className = style;
    element.lang = link.hreflang;
    element.append(...content);
    return element;
  }

  // A page has one title.
  function untitled(block) {
    if (!block.matches("h1")) return block;
    const title = document.createElement("p");
    title.className = "parallel-title";
    title.append(...block.childNodes);
    return title;
  }

  // What is being read stays where it is on the screen.
  function keepingPlace(change) {
    const blocks = [...article.querySelectorAll("h2, h3, h4, p, pre, figure, li")];
    const read = scrollY > 0 && blocks.find((block) => block.getBoundingClientRect().bottom > 60);
    const top = read && read.getBoundingClientRect().top;
    change();
    if (read && read.isConnected) scrollBy({ top: read.getBoundingClientRect().top - top, behavior: "instant" });
    dispatchEvent(new Event("resize"));
  }
}
