/* One row of a dataset: its texts shown by role, and edited in place. Used by the table's side panel and by the review. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const LONG = 12000; // characters of one text shown at first; a cell may hold ten million
  const ROLES = ["system", "user", "assistant", "tool"];
  const clone = (value) => JSON.parse(JSON.stringify(value));
  const textOf = (content) => (typeof content === "string" ? content : content == null ? "" : JSON.stringify(content, null, 1));

  /** A count with separators: 1,204,331. */
  const count = (n) => (n == null ? "–" : Number(n).toLocaleString("en"));

  /** Messages or a plain string as parts: {role, path, text, message?, side?}. */
  const side = (row, key, role, name) => {
    const value = row[key];
    if (value == null) return [];
    if (!Array.isArray(value)) return [{ role, path: [key], text: textOf(value), side: name }];
    return value.flatMap((message, i) => {
      const thought = ["reasoning_content", "thinking"].find((k) => message[k]);
      const own = { role: message.role, path: [key, i, "content"], text: textOf(message.content), message, list: key, at: i, side: name };
      return thought ? [{ role: "reasoning", path: [key, i, thought], text: textOf(message[thought]), side: name }, own] : [own];
    });
  };

  /** Every text of a canonical row, in reading order. */
  const parts = (row) => {
    if ("messages" in row) return side(row, "messages");
    if ("text" in row) return side(row, "text", "text");
    const contexts = (row.contexts || []).map((text, i) => ({ role: "context", path: ["contexts", i], text: textOf(text) }));
    const comment = row.comment ? [{ role: "comment", path: ["comment"], text: textOf(row.comment) }] : [];
    return [...contexts, ...side(row, "prompt", "user"), ...side(row, "completion", "assistant"), ...side(row, "chosen", "assistant", "chosen"),
      ...side(row, "rejected", "assistant", "rejected"), ...comment];
  };

  const put = (row, path, value) => {
    let at = row;
    for (const key of path.slice(0, -1)) at = at[key];
    at[path.at(-1)] = value;
    return row;
  };

  /** A regular expression for what a search found, or null when it is none in this language. */
  const matcher = (search, regex) => {
    if (!search) return null;
    const source = regex ? search : search.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    for (const flags of ["gimu", "gim"]) try { return new RegExp(source, flags); } catch { continue; }
    return null;
  };

  /** Escaped text with the matches marked. */
  const marked = (text, re, most = 300) => {
    if (!re) return esc(text);
    let out = "", at = 0, n = 0;
    re.lastIndex = 0;
    for (let found; n < most && (found = re.exec(text)); n++) {
      if (!found[0]) { re.lastIndex++; continue; }
      out += `${esc(text.slice(at, found.index))}<mark>${esc(found[0])}</mark>`;
      at = found.index + found[0].length;
    }
    return out + esc(text.slice(at));
  };

  /** One line of a text, cut so that the first match is in it. */
  const line = (text, re, most = 220) => {
    let from = 0;
    if (re) { re.lastIndex = 0; const found = re.exec(text.slice(0, 200000)); if (found?.[0] && found.index > 48) from = found.index - 30; }
    const cut = text.slice(from, from + most * 2).replace(/\s+/g, " ").slice(0, most);
    return (from ? "…" : "") + marked(cut, re, 20);
  };

  /** What a table shows of a row: {first, second, third?}. */
  const brief = (row) => {
    const all = parts(row).filter((p) => !["context", "comment", "reasoning"].includes(p.role));
    if ("text" in row) return { first: textOf(row.text) };
    if ("chosen" in row) {
      const of = (name) => all.filter((p) => p.side === name).at(-1)?.text || "";
      return { first: all.filter((p) => !p.side && p.role !== "system").at(-1)?.text || "", second: of("chosen"), third: of("rejected") };
    }
    const asked = all.find((p) => p.role === "user") || all[0], answer = all.filter((p) => p.role === "assistant").at(-1);
    const calls = answer?.message?.tool_calls?.map((c) => `${c.function?.name}(…)`).join(" ") || "";
    return { first: asked?.text || "", second: answer && answer !== asked ? answer.text || calls : "" };
  };

  const code = (value) => `<pre class="st-dv-code">${esc(JSON.stringify(value, null, 2))}</pre>`;
  const calls = (message) => (message?.tool_calls || []).map((c) => `<div class="st-dv-call"><span class="st-tag">${esc(t("dataview.row.call"))}</span> <b>${esc(c.function?.name)}</b>${code(c.function?.arguments ?? {})}</div>`).join("");
  const roleName = (part) => { const key = `dataview.role.${part.side || part.role}`, text = t(key); return text === key ? part.role : text; };

  const shownPart = (part, index, re) => {
    const long = part.text.length > LONG;
    const body = part.text ? `<div class="st-dv-text" dir="auto">${marked(long ? part.text.slice(0, LONG) : part.text, re)}</div>` : part.message?.tool_calls ? "" : `<div class="st-dv-text st-dv-none">${esc(t("dataview.row.empty"))}</div>`;
    return `<section class="st-dv-msg st-dv-role-${esc(part.role)}${part.side ? ` st-dv-side-${part.side}` : ""}"><h4>${esc(roleName(part))}${part.message?.name ? ` <small>${esc(part.message.name)}</small>` : ""}</h4>
      ${body}${long ? `<button type="button" class="st-btn st-small" data-whole="${index}">${esc(t("dataview.row.whole", { n: count(part.text.length) }))}</button>` : ""}${calls(part.message)}</section>`;
  };

  /** The rendered row: roles coloured, a pair side by side. */
  const shown = (row, re = null) => {
    const all = parts(row).map((part, i) => [part, shownPart(part, i, re)]);
    const of = (name) => all.filter(([p]) => p.side === name).map(([, html]) => html).join("");
    const plain = (test) => all.filter(([p]) => !p.side && test(p)).map(([, html]) => html).join("");
    const pair = "chosen" in row ? `<div class="st-dv-pair"><div>${of("chosen")}</div><div>${of("rejected")}</div></div>` : "";
    const tools = row.tools?.length ? `<details class="st-dv-tools"><summary>${esc(t("dataview.row.tools", { n: row.tools.length }))}</summary>${code(row.tools)}</details>` : "";
    return `<div class="st-dv-shown">${tools}${plain((p) => p.role !== "comment")}${pair}${plain((p) => p.role === "comment")}</div>`;
  };

  const editedPart = (part, i, list) => {
    const name = `${roleName(part)} ${i + 1}`;
    const role = part.list ? `<select data-role-of="${i}" aria-label="${esc(t("dataview.row.role"))}">${[...new Set([...ROLES, part.role])].map((r) => `<option value="${esc(r)}" ${r === part.role ? "selected" : ""}>${esc(roleName({ role: r }))}</option>`).join("")}</select>` : `<h4>${esc(roleName(part))}</h4>`;
    const gone = list && part.list === "messages" ? `<button type="button" class="st-icon" data-remove="${part.at}" aria-label="${esc(t("dataview.row.remove", { name }))}">×</button>` : "";
    return `<section class="st-dv-msg st-dv-role-${esc(part.role)}${part.side ? ` st-dv-side-${part.side}` : ""}"><header>${role}<span class="st-push"></span>${gone}</header>
      <textarea data-part="${i}" dir="auto" spellcheck="true" aria-label="${esc(name)}">${esc(part.text)}</textarea>${calls(part.message)}</section>`;
  };

  /** Textareas over a row; `value()` is the row as typed. */
  class Editor {
    constructor(place, row, { save, cancel, focus = null }) {
      Object.assign(this, { place, row: clone(row), save, cancel });
      place.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); event.stopPropagation(); save(this.value()); }
        else if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); cancel(); }
      });
      this.draw();
      const areas = [...place.querySelectorAll("textarea")];
      const wanted = focus === "answer" ? parts(this.row).findLastIndex((p) => p.role === "assistant" && p.side !== "rejected") : 0;
      const area = areas[wanted < 0 ? areas.length - 1 : wanted];
      area?.focus();
      area?.setSelectionRange(area.value.length, area.value.length);
    }

    draw() {
      const all = parts(this.row), list = "messages" in this.row;
      const label = "label" in this.row ? `<label class="st-dv-line">${esc(t("dataview.row.label"))} <select data-label><option value="good" ${this.row.label ? "selected" : ""}>${esc(t("dataview.label.good"))}</option><option value="bad" ${this.row.label ? "" : "selected"}>${esc(t("dataview.label.bad"))}</option></select></label>` : "";
      this.place.innerHTML = `<div class="st-dv-edit">${label}${all.map((p, i) => editedPart(p, i, list && all.length > 1)).join("")}
        ${list ? `<button type="button" class="st-btn st-small" data-more>${esc(t("dataview.row.add"))}</button>` : ""}</div>`;
      for (const area of this.place.querySelectorAll("textarea")) {
        const fit = () => { area.style.height = "0"; area.style.height = `${Math.min(Math.max(area.scrollHeight + 4, 38), 520)}px`; };
        area.oninput = fit;
        fit();
      }
      for (const pick of this.place.querySelectorAll("[data-role-of]")) pick.onchange = () => { this.take(); this.draw(); };
      for (const button of this.place.querySelectorAll("[data-remove]")) button.onclick = () => { this.take(); this.row.messages.splice(Number(button.dataset.remove), 1); this.draw(); };
      const more = this.place.querySelector("[data-more]");
      if (more) more.onclick = () => {
        this.take();
        this.row.messages.push({ role: this.row.messages.at(-1)?.role === "user" ? "assistant" : "user", content: "" });
        this.draw();
        [...this.place.querySelectorAll("textarea")].at(-1).focus();
      };
    }

    /** Bring what was typed into the row. A text that was structured stays so while it is valid. */
    take() {
      const all = parts(this.row);
      for (const area of this.place.querySelectorAll("[data-part]")) {
        const part = all[Number(area.dataset.part)];
        if (part && area.value !== part.text) put(this.row, part.path, area.value);
      }
      for (const pick of this.place.querySelectorAll("[data-role-of]")) {
        const part = all[Number(pick.dataset.roleOf)];
        if (part) this.row[part.list][part.at].role = pick.value;
      }
      const label = this.place.querySelector("[data-label]");
      if (label) this.row.label = label.value === "good";
      return this.row;
    }

    value() { return this.take(); }
  }

  /** A wait for the button that shows the whole of a long text. */
  const expand = (place, row, re) => place.addEventListener("click", (event) => {
    const at = event.target.dataset?.whole;
    if (at === undefined) return;
    event.target.previousElementSibling.innerHTML = marked(parts(row())[Number(at)].text, re(), 2000);
    event.target.remove();
  });

  /** A language by its code: "German (de)". */
  const language = (code) => {
    try { const name = new Intl.DisplayNames(["en"], { type: "language" }).of(code); return name && name !== code ? `${name} (${code})` : code; } catch { return code; }
  };

  const label = (value) => (value ? `<span class="st-dv-label st-dv-${esc(value)}">${esc(t(`dataview.label.${value}`))}</span>` : "");

  /** What happened to a row since the version was made, as small tags. */
  const state = (item) => {
    const s = item.state || {};
    const all = [s.deleted && ["deleted", "deleted"], s.edited && ["edited", "edited"], s.review && [s.review, s.review]].filter(Boolean);
    const note = s.note ? `<span class="st-dv-state st-dv-is-note" title="${esc(s.note)}">${esc(t("dataview.state.note"))}</span>` : "";
    return all.map(([key, name]) => `<span class="st-dv-state st-dv-is-${esc(key)}">${esc(t(`dataview.state.${name}`))}</span>`).join("") + note;
  };

  /** Pixels from the top of an element to the end of the page's main column. */
  const room = (element, below = 0, least = 340) => {
    const main = element.closest(".dt-main"), box = main?.getBoundingClientRect();
    const left = main ? main.clientHeight - (element.getBoundingClientRect().top - box.top + main.scrollTop) - 14 : window.innerHeight - element.getBoundingClientRect().top - 70;
    return Math.max(least, Math.floor(left - below));
  };

  /** Call `fit` whenever what stands above a view takes more or less room. */
  const watchRoom = (root, own, fit) => {
    const watch = new ResizeObserver(() => fit()), main = root.closest(".dt-main");
    for (const element of [main, ...(main?.querySelectorAll(".dt-bar, .dt-strip, .dt-job, .dt-at") || []), ...own]) if (element) watch.observe(element);
    window.addEventListener("resize", fit);
  };

  const tagsOf = (item) => (Array.isArray(item.tags) ? item.tags : Object.entries(item.tags || {}));

  studio.dataRow = { parts, brief, shown, marked, matcher, line, count, clone, Editor, expand, label, state, tagsOf, roleName, room, watchRoom, language };
})();
