/* The rows of a dataset: any number of them in one scrolling table, searched, filtered, sorted, edited. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const PAGE = 100, PAGES = 60, MOST = 5000; // rows of one request; requests kept; rows one action may take
  const SORTS = ["pos", "lang", "turns", "chars", "score", "label", "source", "reason"];
  const WIDTH = { check: "30px", lang: "52px", turns: "58px", chars: "72px", score: "64px", label: "62px", source: "minmax(70px, 130px)",
    tags: "minmax(80px, 160px)", reason: "minmax(110px, 220px)", state: "96px" };
  const small = matchMedia("(max-width: 760px)");
  const typing = (target) => target.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable=true]");

  class Rows {
    mount(root, shared) {
      Object.assign(this, { root, shared, pages: new Map(), pending: new Map(), chosen: new Map(), gen: 0, matching: 0, cursor: -1, sort: "", desc: false, split: "" });
      root.classList.add("st-dv");
      root.innerHTML = `<div class="st-dv-top"><div class="st-dv-splits" role="radiogroup" aria-label="${esc(t("dataview.split"))}"></div><div class="st-dv-find-place"></div></div>
        <div class="st-dv-bar"><span class="st-dv-count" role="status" aria-live="polite"></span><span class="st-dv-picked"></span><span class="st-push"></span><span class="st-dv-edits"></span></div>
        <div class="st-dv-split"><div class="st-dv-scroll" role="grid" tabindex="0" aria-multiselectable="true" aria-label="${esc(t("dataview.rows"))}"><div class="st-dv-head" role="row"></div>
          <div class="st-dv-win" role="presentation"></div><div class="st-dv-space" role="presentation"></div><div class="st-dv-over"></div></div><aside class="st-dv-side" hidden aria-label="${esc(t("dataview.side"))}"></aside></div>`;
      const find = (name) => root.querySelector(`.st-dv-${name}`);
      Object.assign(this, { splits: find("splits"), counted: find("count"), picked: find("picked"), edits: find("edits"), pane: find("split"), grid: find("scroll"), head: find("head"), win: find("win"), over: find("over") });
      this.filters = new studio.DataFilters(find("find-place"), { changed: () => this.fresh(), facets: (query) => this.shared.call("data_facets", { ref: this.ref, query: { ...query, split: this.split } }) });
      this.scroller = new studio.Scroller(this.grid, { row: small.matches ? 60 : 34, draw: (first, last) => this.draw(first, last) });
      this.side = new studio.DataSide(find("side"), { edit: (ops, raise) => this.edit(ops, raise), step: (by) => this.move(this.cursor + by, { open: true }), close: () => this.shut(),
        matcher: () => this.matcher, why: (item) => this.why(item), whole: (item) => this.shared.call("data_row", { ref: this.ref, split: this.split, pos: item.pos }), readonly: () => this.split === "dropped", focus: () => this.grid.focus({ preventScroll: true }) });
      small.addEventListener("change", () => { this.scroller.row = small.matches ? 60 : 34; if (this.open) { this.columns(); this.scroller.resize(this.matching); } });
      this.grid.addEventListener("click", (event) => this.click(event));
      this.grid.addEventListener("keydown", (event) => this.keys(event));
      this.splits.onclick = (event) => event.target.closest("[data-split]") && this.take(event.target.closest("[data-split]").dataset.split);
      this.splits.onkeydown = (event) => this.splitKeys(event);
      for (const place of [this.picked, this.edits]) place.onclick = (event) => this.act(event.target.closest("[data-act]")?.dataset.act);
      document.addEventListener("keydown", (event) => this.anywhere(event));
      studio.dataRow.watchRoom(root, [find("top"), find("bar")], () => this.fit());
    }

    get shown() { return !!this.visible && this.root.isConnected && this.root.getClientRects().length > 0; }

    show(open) {
      this.visible = true;
      const other = this.ref !== open.ref || this.hash !== open.hash;
      Object.assign(this, { open, ref: open.ref, hash: open.hash });
      if (other) {
        Object.assign(this, { split: open.splits[0] || "train", sort: "", desc: false, cursor: -1 });
        this.shut();
        this.filters.reset({});
        this.scroller.top = 0;
      }
      const wanted = this.wanted;
      this.wanted = null;
      if (wanted) {
        this.split = wanted.split || this.split;
        this.shut();
        Object.assign(this, { sort: wanted.sort || "", desc: !!wanted.desc });
        this.filters.reset(wanted.query || {});
      }
      this.heading();
      this.filters.offer(open, this.split);
      this.editsBar(open.edits);
      this.columns();
      this.fit();
      if (other || wanted) this.fresh(wanted); else this.again();
    }

    hide() { this.visible = false; this.filters.close(); }

    /** Show these rows next time the view opens: {split, query, sort, desc, row}. */
    want(wanted) { this.wanted = wanted; }

    fit() { if (this.shown) this.root.style.setProperty("--st-dv-height", `${studio.dataRow.room(this.pane)}px`); }

    heading() {
      const open = this.open, all = [...open.splits.map((s) => [s, open.rows[s]]), ...(open.dropped ? [["dropped", open.dropped]] : [])];
      this.splits.hidden = all.length < 2;
      this.splits.innerHTML = all.map(([name, n]) => `<button type="button" role="radio" aria-checked="${name === this.split}" tabindex="${name === this.split ? 0 : -1}" data-split="${esc(name)}">${esc(t(`dataview.split.${name}`))} <small>${studio.dataRow.count(n)}</small></button>`).join("");
    }

    splitKeys(event) {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], all = [...this.splits.children];
      if (!by) return;
      event.preventDefault();
      const next = all[(all.findIndex((b) => b.dataset.split === this.split) + by + all.length) % all.length];
      this.take(next.dataset.split);
      this.splits.querySelector("[aria-checked=true]").focus();
    }

    async take(split) {
      if (split === this.split || (!this.side.place.hidden && !(await this.side.leave()))) return;
      this.shut(); // the open row is one of the split before
      this.split = split;
      for (const key of ["reason", "state"]) delete this.filters.query[key];
      if (this.sort === "reason") this.sort = "";
      this.heading();
      this.filters.offer(this.open, split);
      this.columns();
      this.fresh();
    }

    columns() {
      const open = this.open, many = (o) => Object.keys(o || {}).length > 1, dropped = this.split === "dropped", wide = this.side.place.hidden, tight = !wide && this.pane.clientWidth < 980;
      const texts = open.format === "text" ? ["first"] : open.format === "preference" ? ["first", "second", "third"] : ["first", "second"];
      const all = small.matches ? ["pos", "two", "chars"] : ["check", "pos", ...(wide ? texts : texts.slice(0, tight ? 1 : 2)), dropped && !tight && "reason", wide && many(open.languages) && "lang", wide && open.format !== "text" && "turns", !tight && "chars", wide && open.scored && "score", Object.keys(open.labels || {}).length && "label",
        wide && many(open.sources) && "source", wide && Object.keys(open.tags || {}).length && "tags", !dropped && "state"];
      this.cols = all.filter(Boolean);
      const digits = String(Math.max(0, ...Object.values(open.rows), open.dropped || 0)).length, text = wide ? 130 : 90;
      const width = (c) => (c === "pos" ? `${Math.max(62, 24 + 9 * digits)}px` : WIDTH[c] || `minmax(${text}px, ${c === "first" ? 1 : 1.25}fr)`);
      const widths = small.matches ? ["62px", "minmax(0, 1fr)", "68px"] : this.cols.map(width);
      this.root.style.setProperty("--st-dv-cols", widths.join(" "));
      this.root.style.setProperty("--st-dv-least", `${widths.reduce((sum, w) => sum + parseInt(w.replace("minmax(", ""), 10), 12)}px`);
      this.grid.setAttribute("aria-colcount", this.cols.length);
      this.header();
    }

    header() {
      const name = (c) => t(`dataview.col.${["first", "second", "third"].includes(c) ? `${c}.${["text", "preference"].includes(this.open.format) ? this.open.format : "chat"}` : c}`);
      this.head.innerHTML = this.cols.map((c) => {
        const on = (this.sort || "pos") === c, sort = on ? (this.desc ? "descending" : "ascending") : "none";
        if (c === "check") return `<span role="columnheader"><input type="checkbox" data-all tabindex="-1" aria-label="${esc(t("dataview.select_all"))}"></span>`;
        return SORTS.includes(c) ? `<span role="columnheader" class="st-dv-c-${c}" aria-sort="${sort}"><button type="button" data-sort="${c}">${esc(name(c))}<i aria-hidden="true">${on ? (this.desc ? "↓" : "↑") : ""}</i></button></span>` : `<span role="columnheader" class="st-dv-c-${c}">${esc(name(c))}</span>`;
      }).join("");
    }

    /** Why a row was left out, in the words of the step that did. */
    why(item) {
      for (const step of this.open.pipeline || []) for (const r of step.reasons || []) if (r.code === item.reason) return r.message;
      return item.reason || "";
    }

    query() { return { ...this.filters.query, split: this.split }; }

    /** Another query: from the top. */
    fresh(wanted = null) {
      Object.assign(this, { cursor: -1, anchor: -1, matcher: studio.dataRow.matcher(this.filters.query.search, this.filters.query.regex) });
      this.chosen.clear();
      this.scroller.top = 0;
      this.restart(wanted);
    }

    /** The same query once more, e.g. after an edit: what is in sight stays until it is replaced. */
    again() { this.restart(); }

    restart(wanted = null) {
      this.gen++;
      this.stale = this.pages;
      this.pages = new Map();
      this.pending.clear();
      this.grid.setAttribute("aria-busy", "true");
      const at = wanted ? 0 : Math.floor(this.scroller.top / this.scroller.row / PAGE);
      this.fetch(at, true).then(() => wanted?.row !== undefined && this.find(wanted.row));
      this.pickedBar();
    }

    async find(pos) {
      // Unfiltered and unsorted, a row stands at its own number.
      if (!this.filters.active && !this.sort) await this.move(pos, { open: true });
    }

    fetch(page, first = false) {
      if (this.pending.has(page)) return this.pending.get(page);
      const gen = this.gen;
      const work = this.shared.call("data_rows", { ref: this.ref, query: this.query(), sort: this.sort || null, desc: this.desc, offset: page * PAGE, limit: PAGE }).then((found) => {
        if (gen !== this.gen) return;
        this.pages.set(page, found.rows);
        for (const item of found.rows) if (this.chosen.has(item.pos)) this.chosen.set(item.pos, item);
        this.pages.size > PAGES && this.pages.delete(this.pages.keys().next().value);
        this.arrived(found, first);
      }).catch((error) => gen === this.gen && this.failed(error)).finally(() => gen === this.gen && this.pending.delete(page));
      this.pending.set(page, work);
      return work;
    }

    arrived(found, first) {
      if (first || found.matching !== this.matching) {
        this.matching = found.matching;
        this.grid.setAttribute("aria-rowcount", found.matching + 1);
        const n = studio.dataRow.count;
        this.counted.classList.remove("st-is-bad");
        this.counted.textContent = this.filters.active ? t("dataview.count.some", { n: n(found.matching), of: n(found.total) }) : t("dataview.count.all", { n: n(found.total) });
        this.counted.title = found.ms != null ? t("dataview.count.ms", { ms: Math.round(found.ms) }) : "";
        if (first) this.stale = null;
        this.nothing(found);
        this.scroller.resize(found.matching);
        this.grid.removeAttribute("aria-busy");
      }
      this.scroller.ask();
    }

    nothing(found) {
      this.over.innerHTML = found.matching ? "" : `<div class="st-empty"><b>${esc(t(this.filters.active ? "dataview.none" : "dataview.empty"))}</b><p>${esc(t(this.filters.active ? "dataview.none.hint" : "dataview.empty.hint"))}</p>${this.filters.active ? `<button type="button" class="st-btn st-small" data-clear-filters>${esc(t("dataview.filter.clear_all"))}</button>` : ""}</div>`;
      const button = this.over.querySelector("[data-clear-filters]");
      if (button) button.onclick = () => this.filters.reset({}, true);
    }

    failed(error) {
      this.grid.removeAttribute("aria-busy");
      this.counted.textContent = `${error.message} ${error.hint || ""}`;
      this.counted.classList.add("st-is-bad");
      Object.assign(this, { stale: null, matching: 0 });
      this.over.innerHTML = "";
      this.scroller.resize(0);
    }

    at(index) {
      const page = Math.floor(index / PAGE), list = this.pages.get(page) || this.stale?.get(page);
      return list?.[index % PAGE];
    }

    draw(first, last) {
      this.sight = [first, last];
      let html = "", missing = [];
      for (let i = first; i <= last; i++) {
        const item = this.at(i), page = Math.floor(i / PAGE);
        if (!this.pages.has(page) && missing.at(-1) !== page) missing.push(page);
        html += item ? this.row(item, i) : `<div class="st-dv-row st-dv-wait" role="row" style="transform:translateY(${this.scroller.place(i)}px)"><span></span></div>`;
      }
      this.win.innerHTML = html;
      if (this.cursor >= first && this.cursor <= last) this.grid.setAttribute("aria-activedescendant", `st-dv-r-${this.cursor}`); else this.grid.removeAttribute("aria-activedescendant");
      if (!missing.length) {
        const next = Math.floor(last / PAGE) + (last % PAGE > PAGE * 0.6 ? 1 : 0);
        if (!this.pages.has(next) && next * PAGE < this.matching) missing = [next];
      }
      clearTimeout(this.later); // a thumb being dragged asks for what it stops at, not for all it passes
      if (missing.length) this.later = setTimeout(() => missing.slice(0, 2).forEach((page) => this.fetch(page)), 45);
    }

    row(item, i) {
      const R = studio.dataRow, brief = R.brief(item.row), re = this.matcher, s = item.state || {};
      const cell = {
        check: () => `<input type="checkbox" tabindex="-1" aria-label="${esc(t("dataview.select", { n: item.pos + 1 }))}" ${this.chosen.has(item.pos) ? "checked" : ""}>`,
        pos: () => R.count(item.pos + 1), first: () => R.line(brief.first, re), second: () => R.line(brief.second ?? "", re), third: () => R.line(brief.third ?? "", re),
        lang: () => esc(item.lang), turns: () => item.turns, chars: () => R.count(item.chars), score: () => (item.score == null ? "" : studio.num(item.score, 3)), label: () => R.label(item.label),
        source: () => esc(item.source), reason: () => `<b>${esc(this.why(item))}</b> ${R.line(item.detail || "", re, 80)}`, state: () => R.state(item),
        tags: () => R.tagsOf(item).map(([k, v]) => `<span class="st-tag" title="${esc(k)}">${esc(v)}</span>`).join(" "),
        two: () => `<span class="st-dv-one">${R.line(brief.first, re, 90)}</span><span class="st-dv-other">${this.split === "dropped" ? `<b>${esc(this.why(item))}</b> ` : R.state(item)}${R.label(item.label)}${R.line(brief.second ?? "", re, 90)}</span>`,
      };
      const cls = ["st-dv-row", i === this.cursor && "st-dv-cursor", this.chosen.has(item.pos) && "st-dv-picked-row", s.deleted && "st-dv-gone", s.review === "drop" && "st-dv-gone"].filter(Boolean).join(" ");
      return `<div class="${cls}" role="row" id="st-dv-r-${i}" data-i="${i}" aria-rowindex="${i + 2}" aria-selected="${this.chosen.has(item.pos)}" style="transform:translateY(${this.scroller.place(i)}px)">${this.cols.map((c) => `<span role="gridcell" class="st-dv-c-${c}">${cell[c]()}</span>`).join("")}</div>`;
    }

    click(event) {
      const sort = event.target.closest("[data-sort]")?.dataset.sort;
      if (sort) return this.order(sort);
      if (event.target.matches("[data-all]")) return this.all(event.target.checked);
      const row = event.target.closest("[data-i]");
      if (!row) return;
      const i = Number(row.dataset.i), check = event.target.closest(".st-dv-c-check");
      if (event.shiftKey) { window.getSelection()?.removeAllRanges(); return this.range(i); }
      if (check || event.ctrlKey || event.metaKey) { this.toggle(i); this.cursor = this.anchor = i; this.grid.focus({ preventScroll: true }); return this.scroller.ask(); }
      if (window.getSelection()?.toString()) return;
      this.move(i, { open: true, focus: false });
    }

    order(name) {
      if ((this.sort || "pos") === name) { if (this.desc) Object.assign(this, { sort: "", desc: false }); else this.desc = true; } else Object.assign(this, { sort: name, desc: ["chars", "turns", "score"].includes(name) });
      if (this.sort === "pos" && !this.desc) this.sort = "";
      if (!this.sort && this.desc) this.sort = "pos";
      this.header();
      this.fresh();
      this.head.querySelector(`[data-sort=${name}]`)?.focus();
    }

    toggle(i) {
      const item = this.at(i);
      if (!item) return;
      if (this.chosen.has(item.pos)) this.chosen.delete(item.pos); else this.chosen.set(item.pos, item);
      this.pickedBar();
    }

    /** Select from the anchor to a row, fetching what lies between. */
    async range(to) {
      const from = this.anchor >= 0 ? this.anchor : Math.max(0, this.cursor), [low, high] = [Math.min(from, to), Math.max(from, to)];
      if (high - low >= MOST) return this.shared.toast(t("dataview.too_many", { n: studio.dataRow.count(MOST) }), "bad", t("dataview.too_many.hint"));
      const gen = this.gen;
      for (let page = Math.floor(low / PAGE); page <= Math.floor(high / PAGE); page++) if (!this.pages.has(page)) await this.fetch(page);
      if (gen !== this.gen) return;
      this.chosen.clear();
      for (let i = low; i <= high; i++) { const item = this.at(i); if (item) this.chosen.set(item.pos, item); }
      Object.assign(this, { anchor: from, cursor: to });
      this.pickedBar();
      this.scroller.show(to);
    }

    all(on) {
      if (!on) { this.chosen.clear(); this.pickedBar(); return this.scroller.ask(); }
      if (this.matching > MOST) { const box = this.head.querySelector("[data-all]"); if (box) box.checked = false; return this.shared.toast(t("dataview.too_many", { n: studio.dataRow.count(MOST) }), "bad", t("dataview.too_many.hint")); }
      const cursor = this.cursor;
      this.anchor = 0;
      return this.range(this.matching - 1).then(() => { this.cursor = cursor; this.scroller.ask(); });
    }

    async move(index, { open = !this.side.place.hidden, focus = true, extend = false } = {}) {
      if (!this.matching) return;
      index = Math.min(this.matching - 1, Math.max(0, index));
      if (open && !this.side.place.hidden && index !== this.cursor && !(await this.side.leave())) return;
      if (extend) { if (this.anchor < 0) this.anchor = Math.max(0, this.cursor); return this.range(index); }
      Object.assign(this, { cursor: index, anchor: index });
      this.scroller.show(index);
      const page = Math.floor(index / PAGE);
      if (!this.at(index)) await this.fetch(page);
      const item = this.at(index);
      if (item && open && this.cursor === index) this.reveal(item, true);
      if (focus && !this.side.place.contains(document.activeElement)) this.grid.focus({ preventScroll: true });
      this.scroller.ask();
    }

    reveal(item, force) {
      const side = this.side.place;
      if (side.hidden) { side.hidden = false; this.pane.classList.add("st-dv-with-side"); this.columns(); this.scroller.show(this.cursor); }
      this.side.show(item, { title: t("dataview.side.row", { n: studio.dataRow.count(item.pos + 1) }), force });
    }

    shut() {
      const inside = this.side.place.contains(document.activeElement);
      this.side.place.hidden = true;
      this.side.editor = null;
      this.pane.classList.remove("st-dv-with-side");
      if (this.open) this.columns();
      this.scroller.ask();
      if (inside) this.grid.focus({ preventScroll: true });
    }

    keys(event) {
      if (event.target !== this.grid) return;
      const extend = event.shiftKey, at = this.cursor;
      const go = { ArrowDown: at + 1, ArrowUp: at < 0 ? 0 : at - 1, PageDown: at + this.scroller.page, PageUp: at - this.scroller.page, Home: 0, End: this.matching - 1 }[event.key];
      if (go !== undefined) { event.preventDefault(); return this.move(go, { extend }); }
      if (event.key === " ") { event.preventDefault(); if (at < 0) return this.move(0); this.toggle(at); this.anchor = at; return this.scroller.ask(); }
      if (event.key === "Enter") { event.preventDefault(); return this.move(Math.max(0, at), { open: true }); }
      if (event.key === "Escape") { if (this.chosen.size) { this.chosen.clear(); this.pickedBar(); this.scroller.ask(); } else this.shut(); return; }
      if (event.key === "Delete" || event.key === "Backspace") { event.preventDefault(); return this.act("delete"); }
      if (event.key === "e" && at >= 0 && !event.ctrlKey && !event.metaKey) { event.preventDefault(); return this.move(at, { open: true }).then(() => this.side.edit()); }
      if (event.key === "a" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.all(true); }
    }

    anywhere(event) {
      if (!this.shown || event.defaultPrevented || document.querySelector("dialog[open]") || typing(event.target)) return;
      const key = event.key.toLowerCase(), ctrl = event.ctrlKey || event.metaKey;
      if (ctrl && (key === "y" || (key === "z" && event.shiftKey))) { event.preventDefault(); this.act("redo"); }
      else if (ctrl && key === "z") { event.preventDefault(); this.act("undo"); }
      else if (key === "/" && !ctrl) { event.preventDefault(); this.filters.input.focus(); }
    }

    pickedBar() {
      const n = this.chosen.size, button = (act, words) => `<button type="button" class="st-btn st-small" data-act="${act}">${esc(t(words))}</button>`;
      this.picked.innerHTML = !n ? "" : `<b>${esc(t("dataview.picked", { n: studio.dataRow.count(n) }))}</b>${this.split === "dropped" ? "" : button("delete", "dataview.delete") + button("restore", "dataview.restore")}${button("none", "dataview.unselect")}`;
      const box = this.head.querySelector("[data-all]");
      if (box) Object.assign(box, { checked: n > 0 && n === this.matching, indeterminate: n > 0 && n < this.matching });
    }

    editsBar(edits) {
      this.open.edits = edits;
      studio.data?.draw?.(); // the head of the page counts them too
      const n = edits?.count || 0, icon = (act, words, sign, on) => `<button type="button" class="st-icon" data-act="${act}" title="${esc(t(words))}" aria-label="${esc(t(words))}" ${on ? "" : "disabled"}>${sign}</button>`;
      this.edits.innerHTML = `${n ? `<span class="st-muted">${esc(t(n === 1 ? "dataview.edits.one" : "dataview.edits", { n: studio.dataRow.count(n) }))}</span>` : ""}
        ${icon("undo", "dataview.undo", "↶", edits?.undo ?? n > 0)}${icon("redo", "dataview.redo", "↷", edits?.redo ?? true)}
        ${n ? `<button type="button" class="st-btn st-small st-primary" data-act="apply">${esc(t("dataview.apply"))}</button>` : ""}`;
    }

    async act(act) {
      if (!act) return;
      if (act === "none") { this.chosen.clear(); this.pickedBar(); return this.scroller.ask(); }
      if (act === "apply") return this.shared.runStep({ kind: "data", method: "edits", dataset: this.ref });
      if (act === "undo" || act === "redo") return this.back(act);
      if (this.split === "dropped") return;
      const picked = this.chosen.size ? [...this.chosen.values()] : this.cursor >= 0 && this.at(this.cursor) ? [this.at(this.cursor)] : [];
      const op = act === "delete" && picked.length && picked.every((item) => item.state?.deleted) ? "restore" : act;
      if (picked.length) await this.edit(picked.map((item) => ({ op, pos: item.pos })));
    }

    /** Write edits down; the rows in sight are read again. With `raise`, a refusal is the caller's to show. */
    async edit(ops, raise = false) {
      try {
        this.editsBar(await this.shared.call("data_edit", { ref: this.ref, split: this.split, ops }));
        this.again();
        await this.keep();
      } catch (error) { if (raise) throw error; studio.failed(error); }
    }

    /** The row that is open stays open, even if an edit took it out of what is searched for. */
    async keep() {
      const { item, place } = this.side;
      if (place.hidden || !item) return;
      const fresh = await this.side.host.whole(item);
      if (this.side.item?.pos === item.pos && !place.hidden) this.reveal(fresh, true);
    }

    async back(which) {
      try {
        const found = await this.shared.call(`data_${which}`, { ref: this.ref });
        this.editsBar(found.edits || found);
        studio.say(t(`dataview.${which}.done`));
        const touched = (found.touched || []).find((key) => key.split === this.split);
        this.again();
        if (touched && !this.filters.active && !this.sort) this.move(touched.pos, { open: false });
        await this.keep();
      } catch (error) { studio.failed(error); }
    }
  }
  (studio.dataViews ??= {}).rows = new Rows();
})();
