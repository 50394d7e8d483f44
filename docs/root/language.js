// The language chosen last, else the first one the browser prefers that we have.
(function () {
  var chosen = null;
  try { chosen = localStorage.getItem("language"); } catch (error) { /* storage may be disabled */ }
  var wanted = (chosen ? [chosen] : navigator.languages || [navigator.language || ""]);
  for (var i = 0; i < wanted.length; i++) {
    var language = wanted[i].slice(0, 2).toLowerCase();
    if (language === "zh" || language === "en") {
      // An archive opened from a folder has nobody to serve a folder's index.html.
      location.replace(language + "/" + (location.protocol === "file:" ? "index.html" : "") + location.hash);
      return;
    }
  }
})();
