"use strict";

// Copy: the snippet's text is what is shown; the stand-alone form waits in a template.
document.addEventListener("click", async function (event) {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const block = button.closest(".snippet");
  const source = button.dataset.copy === "snippet"
    ? block.querySelector("pre code").textContent
    : block.querySelector("template[data-standalone]").content.textContent;
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

function announce(message) {
  const status = document.getElementById("site-status");
  status.textContent = "";
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
    if ((event.key !== "/" && event.key !== "s") || event.target.closest("input, textarea, select, [contenteditable]")) return;
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
  filter.parentElement.hidden = false;
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
