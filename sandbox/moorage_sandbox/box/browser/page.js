// Runs in an isolated world of each page: it can use the document, and scripts of the page cannot see it.
globalThis.moorage ??= (() => {
  const INTERACTIVE = [
    "a[href]", "button", "input:not([type=hidden])", "select", "textarea", "summary", "video[controls]", "audio[controls]",
    "[role=button]", "[role=link]", "[role=tab]", "[role=menuitem]", "[role=checkbox]", "[role=radio]", "[role=option]",
    "[role=switch]", "[role=combobox]", "[role=textbox]", "[onclick]", "[contenteditable='']", "[contenteditable=true]",
    "[tabindex]:not([tabindex='-1'])",
  ].join(",");
  const MOST_EXAMINED = 20000, MOST_LISTED = 200, MOST_TEXT = 20000, LABEL = 100;
  let elements = [];

  const short = (text, most) => {
    text = String(text ?? "").replace(/\s+/g, " ").trim();
    return text.length > most ? text.slice(0, most) + "…" : text;
  };

  // The position of an element in the viewport of the tab, with the offsets of the frames that contain it.
  const place = (element) => {
    const box = [...element.getClientRects()].find((it) => it.width > 0 && it.height > 0);
    if (!box) return null;
    let { x, y } = box;
    for (let view = element.ownerDocument.defaultView; view && view !== window; view = view.parent) {
      const frame = view.frameElement;
      if (!frame) return null;
      const outer = frame.getBoundingClientRect();
      x += outer.x + frame.clientLeft;
      y += outer.y + frame.clientTop;
    }
    return { x, y, width: box.width, height: box.height };
  };
  const inViewport = (box) => box.x < innerWidth && box.y < innerHeight && box.x + box.width > 0 && box.y + box.height > 0;

  const deepest = (root, x, y) => {
    let element = root.elementFromPoint(x, y);
    while (element?.shadowRoot) {
      const inner = element.shadowRoot.elementFromPoint(x, y);
      if (!inner || inner === element) break;
      element = inner;
    }
    return element;
  };

  // Whether another element, such as a dialog, is on top of it.
  const isCovered = (element) => {
    if (element.ownerDocument !== document) return false;
    const box = element.getBoundingClientRect();
    const x = box.x + box.width / 2, y = box.y + box.height / 2;
    if (x < 0 || y < 0 || x >= innerWidth || y >= innerHeight) return false;
    const top = deepest(document, x, y);
    if (!top || top === element || element.contains(top) || top.contains(element)) return false;
    if (element.getRootNode() !== top.getRootNode()) return false;
    return ![...(element.labels ?? [])].some((label) => label.contains(top));
  };

  const isInteractive = (element) => {
    if (element.matches(INTERACTIVE)) return true;
    const box = element.getBoundingClientRect();
    if (!box.width || !inViewport(box) || element.matches("label *, a *, button *")) return false;
    const parent = element.parentElement;
    return getComputedStyle(element).cursor === "pointer" && parent !== null && getComputedStyle(parent).cursor !== "pointer";
  };

  const collect = () => {
    const found = [];
    let examined = 0;
    const visit = (root) => {
      for (const element of root.querySelectorAll("*")) {
        if (++examined > MOST_EXAMINED) return;
        if (element.shadowRoot) visit(element.shadowRoot);
        if (element.tagName === "IFRAME") {
          try { if (element.contentDocument) visit(element.contentDocument); } catch { /* a frame of another origin */ }
        }
        if (!isInteractive(element) || element.disabled) continue;
        if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        const box = place(element);
        if (box && !isCovered(element)) found.push({ element, box });
      }
    };
    visit(document);
    return found;
  };

  const describe = (element) => {
    const tag = element.tagName.toLowerCase();
    const attributes = [];
    for (const name of ["type", "name", "placeholder", "role"]) {
      const value = element.getAttribute(name);
      if (value && !(tag === "button" && name === "type")) attributes.push(`${name}="${short(value, 40)}"`);
    }
    if (element.checked) attributes.push("checked");
    let text = element.getAttribute("aria-label") || element.innerText || element.getAttribute("title") || element.getAttribute("alt") ||
      element.querySelector?.("img[alt]")?.alt || "";
    if (tag === "select") {
      text = [...element.options].slice(0, 30).map((it, at) => `${at}: ${short(it.text, 40)}${it.selected ? " (selected)" : ""}`).join(", ");
      return `<${[tag, ...attributes].join(" ")}> [${text}]`;
    }
    if (tag === "input" || tag === "textarea") {
      const label = element.labels?.[0]?.innerText;
      text = [label && short(label, LABEL), element.type === "password" ? "" : element.value].filter(Boolean).join(": ");
    }
    return `<${[tag, ...attributes].join(" ")}> ${short(text, LABEL)}`.trimEnd();
  };

  const observe = (withContent) => {
    let found = collect();
    let more = 0;
    if (found.length > MOST_LISTED) {
      // On a long page, list only the elements from the top of the visible part downwards.
      const below = found.filter(({ box }) => box.y + box.height > 0);
      more = found.length - Math.min(below.length, MOST_LISTED);
      found = below.slice(0, MOST_LISTED);
    }
    elements = found.map(({ element }) => element);
    const listed = elements.map((element, at) => `${at}: ${describe(element)}`);
    const view = document.scrollingElement ?? document.documentElement;
    const result = {
      url: location.href.slice(0, 2048), title: short(document.title, 500), elements: listed, more,
      scroll: [Math.round(scrollY), innerHeight, view?.scrollHeight ?? 0],
    };
    if (withContent) {
      const body = document.body ?? document.documentElement;
      const text = (body?.innerText ?? body?.textContent ?? "").replace(/[ \t]+\n/g, "\n").replace(/\n{3,}/g, "\n\n").trim();
      result.content = text.slice(0, MOST_TEXT);
      result.left_out = text.length - result.content.length;
    }
    return result;
  };

  const known = (index) => {
    const element = elements[index];
    return element?.isConnected ? element : null;
  };

  // Scrolls an element into view and returns where to click it.
  const locate = (index) => {
    const element = known(index);
    if (!element) return { missing: index < elements.length ? "gone" : "unknown", count: elements.length };
    element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
    const box = place(element);
    if (!box) return { missing: "hidden", count: elements.length };
    const kind = element.tagName.toLowerCase();
    return { x: box.x + box.width / 2, y: box.y + box.height / 2, kind, file: kind === "input" && element.type === "file" };
  };

  const choose = (index, option) => {
    const element = known(index);
    if (!element) return { missing: index < elements.length ? "gone" : "unknown", count: elements.length };
    if (element.tagName !== "SELECT") return { problem: `Element ${index} is <${element.tagName.toLowerCase()}>, not a <select>.` };
    const chosen = element.options[option];
    if (!chosen || chosen.disabled) {
      return { problem: `Element ${index} has no option ${option} to choose. Its options: ${describe(element)}` };
    }
    element.focus();
    if (element.multiple) chosen.selected = true; else element.selectedIndex = option;
    element.dispatchEvent(new Event("input", { bubbles: true, composed: true }));
    element.dispatchEvent(new Event("change", { bubbles: true }));
    return {};
  };

  // Scrolls the page, or the part with its own scroll bar that is in the middle of the screen.
  const scroll = (direction, toEnd) => {
    let target = deepest(document, innerWidth / 2, innerHeight / 2);
    const canScroll = (it) => it.scrollHeight > it.clientHeight + 1 && ["auto", "scroll"].includes(getComputedStyle(it).overflowY);
    while (target && target !== document.body && target !== document.documentElement && !canScroll(target)) target = target.parentElement;
    if (!target || target === document.body || target === document.documentElement) target = document.scrollingElement ?? document.documentElement;
    const step = toEnd ? target.scrollHeight : target.clientHeight * 0.85;
    target.scrollBy({ top: direction * step, behavior: "instant" });
    return {};
  };

  return { observe, locate, choose, scroll, known };
})();
