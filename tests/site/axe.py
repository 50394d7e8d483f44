"""axe-core's judgement of the page in view."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe

CONTRAST = "color-contrast"

# Marks the first element of each look: where it stands in the style sheet, its colour, its letters' size and weight,
# and what it and those around it paint behind it.
MARK_LOOKS = """() => {
  const behind = new Map([[null, ""]]), seen = new Set();
  const backgrounds = (element) => {
    if (!behind.has(element)) {
      const style = getComputedStyle(element);
      const own = [style.backgroundColor, style.backgroundImage, style.opacity, style.position].join();
      const plain = own === "rgba(0, 0, 0, 0),none,1,static";
      behind.set(element, backgrounds(element.parentElement) + (plain ? "" : `|${own}`));
    }
    return behind.get(element);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const look = [element.tagName, element.className, style.color, style.fontSize, style.fontWeight, backgrounds(element)];
    if (seen.size < seen.add(look.join(";")).size) element.dataset.look = "";
  }
}"""


def contrast_faults(view: Any) -> list[str]:
    """Pale letters, among one element of each look: of thousands that look alike, axe would need many times longer."""
    view.evaluate(MARK_LOOKS)
    found = Axe().run(view, context={"include": [["[data-look]"]]}, options=_options(runOnly=[CONTRAST]))
    view.evaluate("document.querySelectorAll('[data-look]').forEach((element) => { delete element.dataset.look; })")
    return _told(found.response)


def other_faults(view: Any) -> list[str]:
    """What breaks any other rule."""
    return _told(Axe().run(view, options=_options(rules={CONTRAST: {"enabled": False}})).response)


def faults_around_the_article(view: Any) -> list[str]:
    """What breaks any other rule in the parts that all pages share and that another width changes."""
    options = _options(rules={CONTRAST: {"enabled": False}})
    return _told(Axe().run(view, context={"exclude": [["article"]]}, options=options).response)


def _options(**options: Any) -> dict[str, Any]:
    return {"resultTypes": ["violations"], **options}


def _told(found: dict[str, Any]) -> list[str]:
    assert found["passes"] or found["violations"], "axe ran no rule"
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found["violations"] for node in rule["nodes"]]
