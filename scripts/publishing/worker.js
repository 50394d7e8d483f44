"use strict";

// Keeps one language's whole book in the reader's browser, so that it opens without a network.
//
// Each version has a cache of its own, filled completely or not at all; until it is full, and until
// the last tab with the old version is closed, the old version answers. So no tab ever sees a mixture,
// and an update that fails loses nothing.

const VERSION = "__VERSION__";
const FILES = __FILES__; // path → sha256 of its content
const PREFIX = "proven-dl-__LANGUAGE__-";
const SCOPE = new URL("./", location).href;
const urlOf = (path) => new URL(path.replace(/(^|\/)index\.html$/, "$1"), SCOPE).href;
const KNOWN = new Set(Object.keys(FILES).map(urlOf));

self.addEventListener("install", function (event) {
  event.waitUntil(fill());
});

async function fill() {
  const cache = await caches.open(PREFIX + VERSION);
  const paths = Object.keys(FILES);
  try {
    for (let i = 0; i < paths.length; i += 8) {
      await Promise.all(paths.slice(i, i + 8).map((path) => keep(cache, path)));
    }
  } catch (error) {
    await caches.delete(PREFIX + VERSION);
    throw error;
  }
}

// What an older version holds with the same content is not fetched again.
async function keep(cache, path) {
  const url = urlOf(path);
  if (await cache.match(url)) return;
  for (const name of await caches.keys()) {
    if (!name.startsWith(PREFIX) || name === PREFIX + VERSION) continue;
    const held = await (await caches.open(name)).match(url);
    if (held && await sha256(held.clone()) === FILES[path]) return cache.put(url, held);
  }
  // The digest guards against a host that is just being given another version.
  const response = await fetch(url, { cache: "no-cache", integrity: "sha256-" + FILES[path] });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  await cache.put(url, response);
}

async function sha256(response) {
  const digest = await crypto.subtle.digest("SHA-256", await response.arrayBuffer());
  return btoa(String.fromCharCode(...new Uint8Array(digest)));
}

self.addEventListener("activate", function (event) {
  event.waitUntil((async function () {
    for (const name of await caches.keys()) {
      if (name.startsWith(PREFIX) && name !== PREFIX + VERSION) await caches.delete(name);
    }
  })());
});

self.addEventListener("fetch", function (event) {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || !url.href.startsWith(SCOPE)) return;
  url.search = url.hash = "";
  if (KNOWN.has(url.href)) event.respondWith(answer(event.request, url.href));
  else if (event.request.mode === "navigate") event.respondWith(beyond(event.request));
});

async function answer(request, url) {
  const held = await (await caches.open(PREFIX + VERSION)).match(url);
  return held || fetch(request);
}

async function beyond(request) {
  try {
    return await fetch(request);
  } catch (error) {
    return answer(request, urlOf("404.html"));
  }
}
