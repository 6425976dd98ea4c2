/* Search and filters over the rows of a dataset: one chip a filter, its menu counted from the rows that the others leave. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const RANGES = ["chars", "turns", "score"];
  const key = (name) => (name.startsWith("tag:") ? name.slice(4) : t(`dataview.filter.${name}`));
  const count = (n) => studio.dataRow.count(n);

  /** Counts of one menu as [[value, n], …], the largest first, whichever way they came. */
  const pairs = (facet) => {
    const all = Array.isArray(facet) ? facet.map((v) => (Array.isArray(v) ? v : [v.value ?? v, v.count ?? null])) : Object.entries(facet || {});
    return all.sort((a, b) => (b[1] ?? 0) - (a[1] ?? 0));
  };

  class Filters {
    /** `changed()` when the query is another; `facets(query)` asks for counts. */
    constructor(place, { changed, facets }) {
      Object.assign(this, { place, changed, facets, query: {}, open: null });
      place.classList.add("st-dv-filters");
      place.innerHTML = `<div class="st-dv-search"><input type="search" spellcheck="false" placeholder="${esc(t("dataview.search"))}" aria-label="${esc(t("dataview.search"))}" aria-keyshortcuts="/">
        <button type="button" class="st-dv-regex" aria-pressed="false" title="${esc(t("dataview.search.regex"))}" aria-label="${esc(t("dataview.search.regex"))}">.*</button></div><div class="st-dv-chips" role="group" aria-label="${esc(t("dataview.filters"))}"></div>`;
      this.input = place.querySelector("input");
      this.regex = place.querySelector(".st-dv-regex");
      this.chips = place.querySelector(".st-dv-chips");
      this.input.oninput = () => { clearTimeout(this.wait); this.wait = setTimeout(() => this.set("search", this.input.value || undefined), 220); };
      this.input.onkeydown = (event) => { if (event.key === "Enter") { clearTimeout(this.wait); this.set("search", this.input.value || undefined); } };
      this.regex.onclick = () => {
        const on = this.regex.getAttribute("aria-pressed") !== "true";
        this.regex.setAttribute("aria-pressed", String(on));
        if (this.query.search) this.set("regex", on || undefined); else { if (on) this.query.regex = true; else delete this.query.regex; }
      };
      this.chips.addEventListener("click", (event) => {
        const clear = event.target.closest("[data-clear]")?.dataset.clear, menu = event.target.closest("[data-filter]")?.dataset.filter;
        if (clear === "*") this.reset({}, true);
        else if (clear) { this.value(clear, undefined); this.fire(); this.draw(); this.chips.querySelector(`[data-filter="${CSS.escape(clear)}"]`)?.focus(); }
        else if (menu) this.menu(menu);
      });
      document.addEventListener("pointerdown", (event) => { if (this.open && !this.open.contains(event.target) && !event.target.closest("[data-filter]")) this.close(); });
    }

    /** Which filters a dataset has use for. */
    offer(open, split) {
      const many = (facet) => pairs(facet).length > 1;
      this.names = ["chars", "turns", many(open.languages) && "lang", many(open.sources) && "source", pairs(open.labels).length && "label",
        open.scored && "score", ...Object.keys(open.tags || {}).map((k) => `tag:${k}`), split === "dropped" ? "reason" : "state"].filter(Boolean);
      this.draw();
    }

    value(name, next) {
      if (arguments.length === 1) return name.startsWith("tag:") ? this.query.tags?.[name.slice(4)] : this.query[name];
      if (name.startsWith("tag:")) {
        const tags = { ...(this.query.tags || {}) };
        if (next) tags[name.slice(4)] = next; else delete tags[name.slice(4)];
        next = Object.keys(tags).length ? tags : undefined;
        name = "tags";
      }
      if (next === undefined) delete this.query[name]; else this.query[name] = next;
    }

    set(name, next) {
      const before = JSON.stringify(this.query);
      this.value(name, next);
      if (JSON.stringify(this.query) !== before) { this.fire(); this.draw(); }
    }

    fire() { this.changed(); }

    /** Take a whole query, e.g. from a plot that was clicked. */
    reset(query, tell = false) {
      this.query = { ...query };
      this.input.value = query.search || "";
      this.regex.setAttribute("aria-pressed", String(!!query.regex));
      this.draw();
      if (tell) this.fire();
    }

    get active() { return Object.keys(this.query).filter((k) => k !== "regex" && this.query[k] !== undefined).length; }

    said(name) {
      const now = this.value(name);
      if (!now) return "";
      if (!RANGES.includes(name)) return now.length > 2 ? t("dataview.filter.several", { n: now.length }) : now.map((v) => this.word(name, v)).join(", ");
      const [low, high] = now;
      return low != null && high != null ? (low === high ? studio.num(low) : `${studio.num(low)}–${studio.num(high)}`) : low != null ? `≥ ${studio.num(low)}` : `≤ ${studio.num(high)}`;
    }

    word(name, value) {
      if (name === "state") return t(`dataview.state.${value}`);
      if (name === "label") { const text = t(`dataview.label.${value}`); return text.startsWith("dataview.") ? value : text; }
      if (name === "lang" && value && value !== "none") return studio.dataRow.language(value);
      return value === "" || value === "none" || value == null ? t("dataview.filter.unknown") : String(value);
    }

    draw() {
      if (!this.names) return;
      const extra = Object.keys(this.query.tags || {}).map((k) => `tag:${k}`).concat(Object.keys(this.query)).filter((k) => !["search", "regex", "tags", "split"].includes(k) && !this.names.includes(k));
      this.chips.innerHTML = [...this.names, ...extra].map((name) => {
        const said = this.said(name);
        return `<span class="st-dv-chip${said ? " st-dv-on" : ""}"><button type="button" data-filter="${esc(name)}" aria-haspopup="dialog" aria-expanded="false">${esc(key(name))}${said ? `<b>${esc(said)}</b>` : ""}<i aria-hidden="true">▾</i></button>
          ${said ? `<button type="button" data-clear="${esc(name)}" aria-label="${esc(t("dataview.filter.clear", { name: key(name) }))}">×</button>` : ""}</span>`;
      }).join("") + (this.active > 1 ? `<button type="button" class="st-link st-dv-all" data-clear="*">${esc(t("dataview.filter.clear_all"))}</button>` : "");
    }

    close(focus = false) {
      const name = this.open?.dataset.menu;
      this.open?.remove();
      this.open = null;
      const button = name && this.chips.querySelector(`[data-filter="${CSS.escape(name)}"]`);
      button?.setAttribute("aria-expanded", "false");
      if (focus) button?.focus();
    }

    async menu(name) {
      if (this.open?.dataset.menu === name) return this.close(true);
      this.close();
      const button = this.chips.querySelector(`[data-filter="${CSS.escape(name)}"]`), box = document.createElement("div");
      button.setAttribute("aria-expanded", "true");
      Object.assign(box, { className: "st-dv-menu", tabIndex: -1 });
      box.setAttribute("role", "dialog");
      box.setAttribute("aria-label", key(name));
      box.dataset.menu = name;
      this.place.append(box);
      this.open = box;
      const at = button.getBoundingClientRect(), frame = this.place.getBoundingClientRect();
      box.style.left = `${Math.max(0, Math.min(at.left - frame.left, frame.width - 272))}px`;
      box.style.top = `${at.bottom - frame.top + 4}px`;
      box.addEventListener("keydown", (event) => this.keys(event, box));
      box.innerHTML = `<div class="st-working" role="status">${esc(t("dataview.counting"))}</div>`;
      const ranged = RANGES.includes(name), query = { ...this.query };
      if (name.startsWith("tag:")) { query.tags = { ...query.tags }; delete query.tags[name.slice(4)]; } else delete query[name];
      try {
        const found = await this.facets(query);
        if (this.open !== box) return;
        if (ranged) this.range(box, name, found[name]); else this.list(box, name, name.startsWith("tag:") ? found.tags?.[name.slice(4)] : found[name]);
      } catch (error) {
        if (this.open === box) box.innerHTML = `<p class="st-is-bad">${esc(error.message)}</p>`;
      }
      box.querySelector("input")?.focus();
    }

    keys(event, box) {
      if (event.key === "Escape") { event.stopPropagation(); this.close(true); return; }
      if (!["ArrowDown", "ArrowUp"].includes(event.key)) return;
      const all = [...box.querySelectorAll("label:not([hidden]) input[type=checkbox]")], at = all.indexOf(document.activeElement);
      if (!all.length) return;
      event.preventDefault();
      all[(at + (event.key === "ArrowDown" ? 1 : -1) + all.length) % all.length].focus();
    }

    range(box, name, facet) {
      const now = this.value(name) || [], has = (v) => v !== undefined && v !== null;
      const low = facet?.min ?? facet?.[0], high = facet?.max ?? facet?.[1], step = name === "score" ? "any" : 1;
      const field = (which, value, hint) => `<label>${esc(t(`dataview.filter.${which}`))}<input type="number" step="${step}" name="${which}" value="${esc(value ?? "")}" placeholder="${esc(hint ?? "")}"></label>`;
      box.innerHTML = `<form class="st-dv-range">${field("least", now[0], has(low) ? +Number(low).toPrecision(6) : "")}${field("most", now[1], has(high) ? +Number(high).toPrecision(6) : "")}<button type="submit" class="st-btn st-small st-primary">${esc(t("dataview.filter.use"))}</button></form>
        ${name === "chars" ? `<p class="st-muted">${esc(t("dataview.filter.chars.help"))}</p>` : ""}`;
      box.querySelector("form").onsubmit = (event) => {
        event.preventDefault();
        const read = (which) => { const v = event.target.elements[which].value; return v === "" ? null : Number(v); };
        const [least, most] = [read("least"), read("most")];
        this.set(name, least === null && most === null ? undefined : [least, most]);
        this.close(true);
      };
    }

    list(box, name, facet) {
      const chosen = new Set((this.value(name) || []).map(String)), counted = new Map(pairs(facet).map(([v, n]) => [String(v ?? ""), n]));
      if (name === "state") for (const [s, n] of counted) if (n === 0) counted.delete(s);
      for (const v of chosen) if (!counted.has(v)) counted.set(v, 0);
      const all = [...counted];
      box.innerHTML = `${all.length > 10 ? `<input type="search" class="st-dv-find" placeholder="${esc(t("dataview.filter.find"))}" aria-label="${esc(t("dataview.filter.find"))}">` : ""}
        <div class="st-dv-options">${all.map(([v, n], i) => `<label data-word="${esc(this.word(name, v).toLowerCase())}"><input type="checkbox" value="${i}" ${chosen.has(v) ? "checked" : ""}><span>${esc(this.word(name, v))}</span><small>${n == null ? "" : count(n)}</small></label>`).join("") || `<p class="st-muted">${esc(t("dataview.filter.none"))}</p>`}</div>`;
      box.querySelector(".st-dv-find")?.addEventListener("input", (event) => {
        const wanted = event.target.value.toLowerCase();
        for (const label of box.querySelectorAll("[data-word]")) label.hidden = !label.dataset.word.includes(wanted);
      });
      box.querySelector(".st-dv-options").onchange = (event) => {
        const value = all[Number(event.target.value)][0];
        if (event.target.checked) chosen.add(value); else chosen.delete(value);
        this.set(name, chosen.size ? [...chosen] : undefined);
        this.chips.querySelector(`[data-filter="${CSS.escape(name)}"]`)?.setAttribute("aria-expanded", "true");
      };
    }
  }
  studio.DataFilters = Filters;
})();
