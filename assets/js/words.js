/* Other languages. The page's own words have keys (studio.t); what the core says is English and is looked up by its text. Texts that
   gradio draws itself (labels, helps, options) are replaced where they stand. In English nothing of this costs anything. */
(() => {
  "use strict";
  const studio = window.studio, data = window.STUDIO || {};
  const known = new Map(Object.entries(data.texts || {}));
  for (const [key, word] of Object.entries(data.words || {})) if (!known.has(data.strings[key]) && !/\{/.test(word)) known.set(data.strings[key], word);
  const other = known.size > 0;

  const TOLD = new Set(["title", "summary", "help", "about", "unit", "placeholder", "message", "hint", "info", "for_whom", "detail"]);
  const both = /^(.+) \(([^()]+)\)$/;  // a title with its unit

  /** A text of the core in the language of the page. */
  studio.worded = (text) => {
    if (!other || typeof text !== "string") return text;
    const parts = known.has(text) ? null : text.match(both);
    return known.get(text) ?? (parts && known.has(parts[1]) ? `${known.get(parts[1])} (${known.get(parts[2]) ?? parts[2]})` : text);
  };

  /** What the core answered, with its explanations in the language of the page. Changes it in place. */
  studio.said = (value) => {
    if (!other || !value || typeof value !== "object") return value;
    if (Array.isArray(value)) { value.forEach(studio.said); return value; }
    for (const [key, one] of Object.entries(value)) {
      if (typeof one === "string") { if (TOLD.has(key)) value[key] = studio.worded(one); }
      else if (key === "choices" && Array.isArray(one)) value[key] = one.map((pair) => (Array.isArray(pair) && pair.length === 2 ? [pair[0], studio.worded(pair[1])] : studio.said(pair)));
      else studio.said(one);
    }
    return value;
  };

  /** Choose a language for this browser; the page is drawn anew. */
  studio.speak = (language) => {
    document.cookie = `studio_language=${encodeURIComponent(language)}; path=/; max-age=31536000; samesite=lax`;
    location.reload();
  };
  // gradio asks the browser for its language, also to say it in the page's head: it is told the one that was chosen
  const chosen = { "zh-Hant": "zh-TW" }[data.language] || data.language || "en";
  Object.defineProperty(navigator, "language", { get: () => chosen, configurable: true });
  studio.languages = data.languages || [];
  studio.language = data.language || "en";

  if (!other) return;
  studio.said(data.methods);
  const DRAWN = ".st-field, .st-heading, .st-section-head, .st-start, .st-start-from, .st-hub-link, .tab-container, .tab-wrapper, ul.options, .st-segments, .st-upload, button.lg";
  const VERBATIM = ".st-mount, textarea, input, pre, code";
  const text = (node) => {
    const here = node.parentElement;
    if (!here?.closest(DRAWN) || here.closest(VERBATIM)) return;
    const plain = node.data.trim(), said = plain && studio.worded(plain);
    if (said && said !== plain) node.data = node.data.replace(plain, () => said);
  };
  const tree = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return text(node);
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    const walk = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) text(walk.currentNode);
    for (const field of [node, ...node.querySelectorAll("[placeholder]")]) if (field.placeholder && field.closest(".st-field")) { const said = studio.worded(field.placeholder); if (said !== field.placeholder) field.placeholder = said; }
  };
  new MutationObserver((changes) => {
    for (const change of changes) if (change.type === "characterData") text(change.target); else change.addedNodes.forEach(tree);
  }).observe(document.documentElement, { childList: true, subtree: true, characterData: true });
})();
