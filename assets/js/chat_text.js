/* The little Markdown that chat models write, as safe HTML: everything is escaped first, and only our own tags are added. */
(() => {
  "use strict";
  const esc = window.studio.esc;

  const inline = (text) => {
    const kept = [];
    const keep = (html) => `\u0001${kept.push(html) - 1}\u0002`;
    let s = text.replace(/[\u0001\u0002]/g, "").replace(/(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)/g, (all, ticks, code) => keep(`<code>${esc(code)}</code>`));
    s = s.replace(/\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g, (all, label, url) => keep(`<a href="${esc(url)}" target="_blank" rel="noopener noreferrer nofollow">${esc(label)}</a>`));
    s = esc(s)
      .replace(/\*\*(?=\S)([\s\S]*?\S)\*\*/g, "<strong>$1</strong>")
      .replace(/(^|[\s(])\*(?=[^\s*])([^*\n]*[^\s*])\*(?=$|[\s).,;:!?])/g, "$1<em>$2</em>")
      .replace(/~~(?=\S)([\s\S]*?\S)~~/g, "<del>$1</del>");
    return s.replace(/\u0001(\d+)\u0002/g, (all, i) => kept[i]);
  };

  const LIST = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

  /** Lines of one list, nested by their indentation. */
  const list = (lines) => {
    const first = lines[0].match(LIST), indent = first[1].length, ordered = /\d/.test(first[2]);
    const items = [];
    for (const line of lines) {
      const m = line.match(LIST);
      if (m && m[1].length <= indent) items.push({ text: m[3], rest: [] });
      else if (m) items.at(-1).rest.push(line);
      else if (items.at(-1).rest.length) items.at(-1).rest.push(line);
      else items.at(-1).text += `\n${line.trim()}`;
    }
    const start = ordered && +first[2].slice(0, -1) !== 1 ? ` start="${parseInt(first[2], 10)}"` : "";
    const tag = ordered ? "ol" : "ul";
    return `<${tag}${start}>${items.map((i) => `<li>${inline(i.text)}${i.rest.length ? list(i.rest) : ""}</li>`).join("")}</${tag}>`;
  };

  const table = (lines) => {
    const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((c) => inline(c.trim()));
    const [head, , ...rows] = lines;
    return `<table class="st-table"><thead><tr>${cells(head).map((c) => `<th>${c}</th>`).join("")}</tr></thead><tbody>${rows.map((r) => `<tr>${cells(r).map((c) => `<td>${c}</td>`).join("")}</tr>`).join("")}</tbody></table>`;
  };

  /** Text -> HTML. */
  window.studio.markdown = (text) => {
    const lines = String(text ?? "").replace(/\r\n?/g, "\n").split("\n"), html = [];
    for (let i = 0; i < lines.length; ) {
      const line = lines[i], fence = line.match(/^\s*(```+|~~~+)\s*([\w+#.-]*)\s*$/);
      if (fence) {
        const body = [];
        for (i++; i < lines.length && !lines[i].trim().startsWith(fence[1]); i++) body.push(lines[i]);
        i++;
        html.push(`<div class="ch-code"><div><span>${esc(fence[2])}</span><button type="button" class="st-link" data-copy-code>${esc(window.studio.t("action.copy"))}</button></div><pre><code>${esc(body.join("\n"))}</code></pre></div>`);
        continue;
      }
      if (!line.trim()) { i++; continue; }
      const head = line.match(/^(#{1,6})\s+(.*)$/);
      if (head) { html.push(`<h${Math.min(6, head[1].length + 2)}>${inline(head[2])}</h${Math.min(6, head[1].length + 2)}>`); i++; continue; }
      if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) { html.push("<hr>"); i++; continue; }
      const take = (go) => { const from = i; while (i < lines.length && go(lines[i], i - from)) i++; return lines.slice(from, i); };
      if (line.startsWith(">")) { html.push(`<blockquote>${inline(take((l) => l.startsWith(">")).map((l) => l.replace(/^>\s?/, "")).join("\n"))}</blockquote>`); continue; }
      if (LIST.test(line)) { html.push(list(take((l, n) => n === 0 || LIST.test(l) || (/^\s+\S/.test(l) && l.trim())))); continue; }
      if (line.includes("|") && /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/.test(lines[i + 1] ?? "")) { html.push(table(take((l) => l.includes("|")))); continue; }
      html.push(`<p>${inline(take((l, n) => l.trim() && (n === 0 || !(LIST.test(l) || /^(#{1,6}\s|>|\s*(```|~~~))/.test(l)))).join("\n"))}</p>`);
    }
    return html.join("");
  };
})();
