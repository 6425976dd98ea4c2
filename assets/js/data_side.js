/* The row that is open beside the table: read, raw JSON, edit in place, note, tags. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  const HUGE = 1e6; // characters of a row that is read here but not edited

  class Side {
    /** host: edit(ops) -> Promise, whole(item) -> Promise, step(by), close(), focus(), matcher(), why(item), readonly(). */
    constructor(place, host) {
      Object.assign(this, { place, host, item: null, view: "text", editor: null });
      place.innerHTML = `<header class="st-dv-side-head"><button type="button" class="st-icon" data-step="-1" aria-label="${esc(t("dataview.side.previous"))}">‹</button>
        <b class="st-dv-side-title"></b><button type="button" class="st-icon" data-step="1" aria-label="${esc(t("dataview.side.next"))}">›</button>
        <span class="st-dv-side-states"></span><span class="st-push"></span><button type="button" class="st-icon" data-close aria-label="${esc(t("action.close"))}">×</button></header>
        <div class="st-dv-side-facts"></div>
        <div class="st-views" role="tablist">${["text", "json", "original"].map((v) => `<button type="button" role="tab" data-view="${v}" aria-selected="${v === "text"}">${esc(t(`dataview.side.${v}`))}</button>`).join("")}</div>
        <div class="st-dv-side-body" role="tabpanel" tabindex="-1"></div><p class="st-dv-error" role="alert" hidden></p>
        <footer class="st-dv-side-foot"></footer>`;
      [this.head, this.facts, this.tabs, this.body, this.error, this.foot] = place.children;
      place.addEventListener("click", (event) => this.click(event));
      place.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && !this.editor && !event.target.closest("dialog")) { event.stopPropagation(); this.leave().then((ok) => ok && this.host.close()); }
      });
      studio.dataRow.expand(this.body, () => this.item.row, () => this.host.matcher());
    }

    /** True when nothing typed would be lost, or the person lets it go. */
    async leave() {
      if (!this.editor) return true;
      const typed = this.typed();
      if (typed !== undefined && JSON.stringify(typed) === JSON.stringify(this.item.row)) return true;
      return !!(await studio.ask(t("dataview.side.discard"), `<p>${esc(t("dataview.side.discard.body"))}</p>`, t("dataview.side.discard.do"), true));
    }

    typed() {
      if (this.view === "text") return this.editor.value();
      try { return JSON.parse(this.editor.area.value); } catch { return undefined; }
    }

    /** Show a row. One that is being edited stays as it is typed, unless `force`. */
    show(item, { title, force = false } = {}) {
      if (this.editor && !force && this.item?.pos === item.pos) { this.item = { ...item, row: this.item.row }; return; }
      this.item = item;
      this.editor = null;
      this.head.querySelector(".st-dv-side-title").textContent = title;
      this.draw();
      if (item.cut) this.fill(item);
    }

    /** Too much text for a field of a page. */
    get huge() { return this.item.cut > HUGE || this.item.chars > HUGE; }

    draw() {
      const item = this.item, R = studio.dataRow, read = this.host.readonly();
      this.error.hidden = true;
      this.place.classList.toggle("st-dv-editing", !!this.editor);
      this.head.querySelector(".st-dv-side-states").innerHTML = R.state(item);
      const facts = [t("dataview.side.chars", { n: R.count(item.chars) }), t("dataview.side.turns", { n: R.count(item.turns) }), item.lang, item.score != null && t("dataview.side.score", { n: studio.num(item.score) }), item.source].filter(Boolean);
      this.facts.innerHTML = `<p>${R.label(item.label)} <span class="st-muted">${facts.map(esc).join(" · ")}</span></p>
        ${item.reason ? `<p class="st-dv-why"><b>${esc(this.host.why(item))}</b> ${esc(item.detail || "")}</p>` : ""}
        ${R.tagsOf(item).length ? `<p class="st-dv-tags">${R.tagsOf(item).map(([k, v]) => `<span class="st-tag">${esc(k)}: ${esc(v)}</span>`).join(" ")}</p>` : ""}`;
      if (this.view === "original" && !item.state?.edited) this.view = "text";
      for (const tab of this.tabs.children) {
        tab.setAttribute("aria-selected", String(tab.dataset.view === this.view));
        tab.tabIndex = tab.dataset.view === this.view ? 0 : -1;
        if (tab.dataset.view === "original") tab.hidden = !item.state?.edited;
      }
      const json = this.view === "json" ? JSON.stringify(item.row, null, 2) : "", cut = this.huge ? `<p class="st-muted">${esc(t("dataview.side.cut", { n: R.count(item.cut || item.chars) }))}</p>` : "";
      if (this.view === "original") this.before(item);
      else this.body.innerHTML = cut + (this.view === "text" ? R.shown(item.row, this.host.matcher()) : `<pre class="st-dv-json" tabindex="0">${R.marked(json.slice(0, HUGE), this.host.matcher())}${json.length > HUGE ? "…" : ""}</pre>`);
      const button = (act, words, kind = "") => `<button type="button" class="st-btn st-small ${kind}" data-act="${act}">${esc(t(words))}</button>`;
      const s = item.state || {};
      this.foot.innerHTML = read ? `<span class="st-muted">${esc(t("dataview.side.readonly"))}</span>` : `${this.huge ? "" : button("edit", "dataview.side.edit")}${s.deleted ? button("restore", "dataview.restore") : button("delete", "dataview.delete", "st-danger")}
        ${s.edited || s.review || s.note ? button("clear", "dataview.side.clear") : ""}${button("tag", "dataview.side.tag")}
        <label class="st-dv-note"><span class="st-visually-hidden">${esc(t("dataview.side.note"))}</span><input data-note maxlength="2000" placeholder="${esc(t("dataview.side.note"))}" value="${esc(s.note || "")}"></label>`;
      const note = this.foot.querySelector("[data-note]");
      if (note) {
        note.onchange = () => this.host.edit([{ op: "note", pos: item.pos, text: note.value }]);
        note.onkeydown = (event) => { if (event.key === "Enter") note.blur(); };
      }
    }

    /** The row as it was before it was edited. */
    async before(item) {
      try {
        const whole = await this.host.whole(item);
        if (this.item === item && this.view === "original") this.body.innerHTML = studio.dataRow.shown(whole.original || whole.row);
      } catch (error) { studio.failed(error); }
    }

    /** A row that came shortened, in full. */
    async fill(item) {
      try {
        const whole = await this.host.whole(item);
        if (this.item === item && !this.editor) { this.item = whole; this.draw(); }
      } catch (error) { studio.failed(error); }
    }

    async click(event) {
      const data = event.target.closest("[data-step],[data-close],[data-view],[data-act]")?.dataset;
      if (!data) return;
      if (data.act === "save") return this.save(this.view === "text" ? this.editor.value() : undefined);
      if (data.act === "cancel") { this.editor = null; return this.draw(); }
      if (!data.act && !(await this.leave())) return;
      if (data.step) { this.editor = null; return this.host.step(Number(data.step)); }
      if (data.close !== undefined) { this.editor = null; return this.host.close(); }
      if (data.view) { this.editor = null; this.view = data.view; return this.draw(); }
      if (data.act === "edit") return this.edit();
      if (data.act === "tag") return this.tag();
      this.host.edit([{ op: data.act, pos: this.item.pos }]);
    }

    edit() {
      if (this.host.readonly() || this.editor || this.huge) return;
      if (this.view === "original") { this.view = "text"; this.draw(); }
      this.foot.innerHTML = `<button type="button" class="st-btn st-small st-primary" data-act="save">${esc(t("dataview.side.save"))}</button><button type="button" class="st-btn st-small" data-act="cancel">${esc(t("action.cancel"))}</button><small class="st-muted">${esc(t("dataview.side.keys"))}</small>`;
      const cancel = () => { this.editor = null; this.draw(); this.host.focus?.(); };
      this.place.classList.add("st-dv-editing");
      if (this.view === "text") this.editor = new studio.dataRow.Editor(this.body, this.item.row, { save: (row) => this.save(row), cancel });
      else {
        this.body.innerHTML = `<textarea class="st-dv-json" spellcheck="false" aria-label="${esc(t("dataview.side.json"))}"></textarea>`;
        const area = this.body.firstElementChild;
        area.value = JSON.stringify(this.item.row, null, 2);
        area.onkeydown = (event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); this.save(); }
          if (event.key === "Escape") { event.stopPropagation(); cancel(); }
        };
        this.editor = { area };
        area.focus();
      }
    }

    async save(row) {
      if (row === undefined) {
        try { row = JSON.parse(this.editor.area.value); } catch (error) { return this.wrong(t("dataview.side.bad_json", { why: error.message })); }
      }
      if (JSON.stringify(row) === JSON.stringify(this.item.row)) { this.editor = null; this.draw(); return this.host.focus?.(); }
      const editor = this.editor;
      this.editor = null;
      try { await this.host.edit([{ op: "set", pos: this.item.pos, row }], true); this.host.focus?.(); } catch (error) {
        this.editor = editor;
        this.wrong(`${error.message} ${error.hint || ""}`);
      }
    }

    wrong(text) { this.error.textContent = text; this.error.hidden = false; }

    async tag() {
      const keys = [...new Set(studio.dataRow.tagsOf(this.item).map(([k]) => k))];
      const answer = await studio.ask(t("dataview.side.tag"), `<label class="st-line">${esc(t("dataview.side.tag.key"))}<input name="key" required maxlength="60" list="st-dv-keys" autofocus><datalist id="st-dv-keys">${keys.map((k) => `<option>${esc(k)}</option>`).join("")}</datalist></label>
        <label class="st-line">${esc(t("dataview.side.tag.value"))}<input name="value" maxlength="200"></label>`, t("dataview.side.save"));
      if (answer?.key) this.host.edit([{ op: "tag", pos: this.item.pos, key: answer.key.trim(), value: answer.value.trim() }]);
    }
  }
  studio.DataSide = Side;
})();
