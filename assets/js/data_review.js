/* Reading through a dataset by hand: one row at a time, one key a decision. Decisions are written down at once, so a reload
   goes on where it was left. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const AHEAD = 60; // rows of one request
  const KEYS = { k: "keep", d: "drop", b: "better", w: "worse", r: "rewrite", n: "note", u: "undo", ArrowLeft: "back", ArrowRight: "next" };
  const SIGNS = { ArrowLeft: "←", ArrowRight: "→" };
  const SHOW = ["unreviewed", "all", "keep", "drop", "better", "worse", "rewrite", "edited", "noted"];
  const DECIDE = ["keep", "drop", "better", "worse"];

  class Review {
    mount(root, shared) {
      Object.assign(this, { root, shared, rows: [], index: 0, base: 0, split: "", filter: "unreviewed", queue: Promise.resolve(), gen: 0 });
      root.classList.add("st-dv", "st-dv-review");
      root.innerHTML = `<div class="st-dv-bar"><label class="st-dv-line" data-split-line>${esc(t("dataview.split"))} <select data-split></select></label>
        <label class="st-dv-line">${esc(t("dataview.review.show"))} <select data-show>${SHOW.map((s) => `<option value="${s}">${esc(t(s === "all" ? "dataview.review.all" : `dataview.state.${s}`))}</option>`).join("")}</select></label>
        <span class="st-push"></span><span class="st-dv-tally st-muted"></span><button type="button" class="st-btn st-small st-primary" data-apply hidden>${esc(t("dataview.apply"))}</button></div>
        <div class="st-dv-progress"><div class="st-bar" role="progressbar" aria-label="${esc(t("dataview.review.progress"))}" aria-valuemin="0" aria-valuemax="100"><i></i></div><span></span></div>
        <div class="st-dv-card st-card" tabindex="-1" aria-label="${esc(t("dataview.review.row"))}"></div>
        <div class="st-dv-keys" role="toolbar" aria-label="${esc(t("dataview.review.keys"))}"></div>`;
      const find = (name) => root.querySelector(name);
      Object.assign(this, { splitBox: find("[data-split]"), showBox: find("[data-show]"), tally: find(".st-dv-tally"), apply: find("[data-apply]"), bar: find(".st-dv-progress .st-bar"), said: find(".st-dv-progress span"), card: find(".st-dv-card"), tools: find(".st-dv-keys") });
      this.splitBox.onchange = () => { this.split = this.splitBox.value; this.restart(); };
      this.showBox.onchange = () => { this.filter = this.showBox.value; this.restart(); };
      this.apply.onclick = () => this.shared.runStep({ kind: "data", method: "edits", dataset: this.ref });
      this.tools.onclick = (event) => { const key = event.target.closest("[data-key]")?.dataset.key; if (key) this.do(key); };
      document.addEventListener("keydown", (event) => this.key(event));
      studio.dataRow.watchRoom(root, [find(".st-dv-bar"), this.tools], () => this.fit());
      studio.dataRow.expand(this.card, () => this.now.row, () => null);
    }

    fit() { if (this.shown) this.root.style.setProperty("--st-dv-height", `${studio.dataRow.room(this.card, this.tools.offsetHeight + 12, 260)}px`); }

    get shown() { return !!this.visible && this.root.isConnected && this.root.getClientRects().length > 0; }
    get now() { return this.rows[this.index]; }
    get memory() { return `studio-review:${this.ref}`; }

    show(open) {
      this.visible = true;
      const other = this.ref !== open.ref || this.hash !== open.hash;
      Object.assign(this, { open, ref: open.ref, hash: open.hash });
      if (other) {
        const kept = this.recall();
        this.split = open.splits.includes(kept.split) ? kept.split : open.splits[0];
        this.filter = SHOW.includes(kept.filter) ? kept.filter : "unreviewed";
        this.splitBox.innerHTML = open.splits.map((s) => `<option value="${esc(s)}">${esc(t(`dataview.split.${s}`))}</option>`).join("");
        this.root.querySelector("[data-split-line]").hidden = open.splits.length < 2;
        Object.assign(this.splitBox, { value: this.split });
        this.showBox.value = this.filter;
        this.restart(kept.pos);
      } else if (!this.editing) this.restart(this.now?.pos);
      this.edits(open.edits);
      this.fit();
    }

    hide() { this.visible = false; this.editing = null; }

    recall() { try { return JSON.parse(localStorage.getItem(this.memory)) || {}; } catch { return {}; } }

    remember() { localStorage.setItem(this.memory, JSON.stringify({ split: this.split, filter: this.filter, pos: this.now?.pos })); }

    query(filter = this.filter) { return { split: this.split, ...(filter === "all" ? {} : { state: [filter] }) }; }

    ask(query, offset, limit) { return this.shared.call("data_rows", { ref: this.ref, query, offset, limit }); }

    fits(item) {
      const s = item.state;
      return this.filter === "all" || (this.filter === "unreviewed" ? !s.review : this.filter === "edited" ? s.edited : this.filter === "noted" ? !!s.note : s.review === this.filter);
    }

    async restart(pos = 0) {
      const gen = ++this.gen;
      Object.assign(this, { rows: [], index: 0, loading: null, base: this.filter === "all" ? Math.max(0, pos || 0) : 0, end: false, editing: null });
      this.keysBar();
      this.card.setAttribute("aria-busy", "true");
      try {
        await this.queue;
        const [left] = await Promise.all([this.ask(this.query("unreviewed"), 0, 1), this.more()]);
        if (gen !== this.gen) return;
        Object.assign(this, { total: left.total, left: left.matching });
        this.draw();
      } catch (error) { if (gen === this.gen) this.card.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
      this.card.removeAttribute("aria-busy");
    }

    /** The rows after those at hand. What was decided meanwhile no longer counts in the query, hence the offset. */
    async more() {
      if (this.end || this.loading) return this.loading;
      const gen = this.gen;
      this.loading = (async () => {
        await this.queue;
        const found = await this.ask(this.query(), this.base + this.rows.filter((item) => this.fits(item)).length, AHEAD);
        if (gen !== this.gen) return;
        const known = new Set(this.rows.map((item) => item.pos));
        this.rows.push(...found.rows.filter((item) => !known.has(item.pos)));
        this.end = found.rows.length < AHEAD;
      })().finally(() => (this.loading = null));
      return this.loading;
    }

    get pair() { return this.open.format === "preference" || (this.now && "chosen" in this.now.row); }

    keysBar() {
      const pair = this.open.format === "preference";
      this.tools.innerHTML = Object.entries(KEYS).map(([key, act]) => {
        const words = t(pair && ["better", "worse"].includes(act) ? `dataview.key.${act}.pair` : `dataview.key.${act}`);
        return `<button type="button" class="st-btn st-dv-key st-dv-key-${act}" data-key="${act}" aria-keyshortcuts="${key}"><kbd aria-hidden="true">${SIGNS[key] || key}</kbd><span>${esc(words)}</span></button>`;
      }).join("");
    }

    draw() {
      const item = this.now, R = studio.dataRow;
      this.counts();
      for (const button of this.tools.children) button.disabled = !item && !["undo", "back"].includes(button.dataset.key);
      if (!item) {
        const over = this.filter === "unreviewed";
        this.card.innerHTML = `<div class="st-empty"><b>${esc(t(over ? "dataview.review.done" : "dataview.review.none"))}</b><p>${esc(t(over ? "dataview.review.done.hint" : "dataview.review.none.hint"))}</p></div>`;
        return;
      }
      const facts = [t("dataview.side.chars", { n: R.count(item.chars) }), item.lang && item.lang, item.score != null && t("dataview.side.score", { n: studio.num(item.score) }), item.source].filter(Boolean);
      this.card.innerHTML = `<header class="st-dv-card-head"><b>${esc(t("dataview.side.row", { n: R.count(item.pos + 1) }))}</b>${R.label(item.label)}<span class="st-dv-card-state">${R.state(item)}</span><span class="st-push"></span><span class="st-muted">${facts.map(esc).join(" · ")}</span></header>
        ${R.tagsOf(item).length ? `<p class="st-dv-tags">${R.tagsOf(item).map(([k, v]) => `<span class="st-tag">${esc(k)}: ${esc(v)}</span>`).join(" ")}</p>` : ""}
        <div class="st-dv-card-body">${R.shown(item.row)}</div>
        ${item.cut ? `<p class="st-muted">${esc(t("dataview.review.cut", { n: R.count(item.cut) }))}</p>` : ""}
        <label class="st-dv-note" ${item.state.note ? "" : "hidden"}><span>${esc(t("dataview.key.note"))}</span><input data-note maxlength="2000" value="${esc(item.state.note || "")}"></label>`;
      const note = this.card.querySelector("[data-note]");
      note.onkeydown = (event) => {
        if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); event.stopPropagation(); if (event.key === "Escape") note.value = item.state.note || ""; note.blur(); this.card.focus(); }
      };
      note.onchange = () => { item.state.note = note.value; this.write([{ op: "note", pos: item.pos, text: note.value }]); };
      this.card.scrollTop = 0;
      this.remember();
    }

    counts() {
      if (this.total == null) return;
      const done = this.total - this.left, share = this.total ? done / this.total : 0, n = studio.dataRow.count;
      this.bar.firstElementChild.style.width = `${(share * 100).toFixed(2)}%`;
      this.bar.setAttribute("aria-valuenow", Math.round(share * 100));
      this.said.textContent = t("dataview.review.of", { done: n(done), total: n(this.total) });
    }

    edits(edits) {
      this.open.edits = edits;
      const review = edits?.review || {};
      this.tally.textContent = Object.entries(review).filter(([, n]) => n).map(([word, n]) => `${t(`dataview.state.${word}`)} ${studio.dataRow.count(n)}`).join(" · ");
      this.apply.hidden = !edits?.count;
    }

    key(event) {
      if (!this.shown || this.editing || event.defaultPrevented || event.ctrlKey && event.key.toLowerCase() !== "z" || event.metaKey || event.altKey) return;
      if (document.querySelector("dialog[open]") || event.target.matches?.("input, textarea, select, [contenteditable=true]")) return;
      const act = event.ctrlKey ? "undo" : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act || (event.target.closest?.("[role=tab], [role=radio]") && event.key.startsWith("Arrow"))) return;
      event.preventDefault();
      this.do(act);
    }

    async do(act) {
      const item = this.now;
      if (act === "undo") return this.undo();
      if (act === "back") return this.back();
      if (!item) return;
      if (act === "next") return this.step();
      if (act === "note") { const line = this.card.querySelector(".st-dv-note"); line.hidden = false; return line.querySelector("input").focus(); }
      if (act === "rewrite") return this.rewrite(item);
      if (DECIDE.includes(act)) return this.decide(item, act);
    }

    /** A decision is shown and the next row comes at once; what is written goes after it, in order. */
    decide(item, act) {
      if (!item.state.review) this.left--;
      item.state.review = act;
      studio.say(`${t("dataview.side.row", { n: item.pos + 1 })}: ${t(`dataview.state.${act}`)}`);
      this.write([{ op: act, pos: item.pos }]);
      return this.step();
    }

    write(ops) {
      const split = this.split;
      this.queue = this.queue.then(async () => {
        try { this.edits(await this.shared.call("data_edit", { ref: this.ref, split, ops })); } catch (error) {
          studio.failed(error);
          await this.reread(ops[0].pos, true);
        }
      });
      return this.queue;
    }

    async step() {
      if (this.index < this.rows.length) this.index++;
      if (this.index >= this.rows.length - 20) { const wait = this.more(); if (this.index >= this.rows.length) try { await wait; } catch (error) { studio.failed(error); } }
      this.draw();
    }

    async back() {
      if (this.index > 0) { this.index--; return this.draw(); }
      if (this.filter !== "all" || !this.base) return;
      const from = Math.max(0, this.base - AHEAD), found = await this.ask(this.query(), from, this.base - from);
      this.rows.unshift(...found.rows);
      this.index = found.rows.length - 1;
      this.base = from;
      this.draw();
    }

    /** One row as it is stored; with `go`, it is what the person looks at next. */
    async reread(pos, go = false) {
      const found = await this.ask({ split: this.split }, pos, 1), fresh = found.rows[0], at = this.rows.findIndex((item) => item.pos === pos);
      if (!fresh) return;
      if (at >= 0) this.rows[at] = fresh; else if (go) this.rows.splice(this.index, 0, fresh);
      if (go && at >= 0) this.index = at;
      if (this.editing) return;
      const left = await this.ask(this.query("unreviewed"), 0, 1);
      this.left = left.matching;
      this.draw();
    }

    async undo() {
      await this.queue;
      try {
        const found = await this.shared.call("data_undo", { ref: this.ref });
        this.edits(found.edits || found);
        studio.say(t("dataview.undo.done"));
        const touched = (found.touched || []).find((key) => key.split === this.split);
        if (touched) await this.reread(touched.pos, true); else this.restart(this.now?.pos);
      } catch (error) { studio.failed(error); }
    }

    rewrite(item) {
      if (item.cut) return this.shared.toast(t("dataview.review.cut", { n: studio.dataRow.count(item.cut) }), "bad");
      const body = this.card.querySelector(".st-dv-card-body"), done = () => { this.editing = null; this.keysBar(); this.draw(); this.card.focus({ preventScroll: true }); };
      const save = (row) => {
        if (JSON.stringify(row) === JSON.stringify(item.row)) return done();
        if (!item.state.review) this.left--;
        item.row = row;
        Object.assign(item.state, { edited: true, review: "rewrite" });
        this.write([{ op: "rewrite", pos: item.pos, row: studio.dataRow.clone(row) }]).then(() => this.reread(item.pos));
        done();
      };
      this.editing = new studio.dataRow.Editor(body, item.row, { focus: "answer", save, cancel: done });
      this.tools.innerHTML = `<button type="button" class="st-btn st-primary" data-save>${esc(t("dataview.side.save"))}</button><button type="button" class="st-btn" data-cancel>${esc(t("action.cancel"))}</button><small class="st-muted">${esc(t("dataview.side.keys"))}</small>`;
      this.tools.querySelector("[data-save]").onclick = () => save(this.editing.value());
      this.tools.querySelector("[data-cancel]").onclick = done;
    }
  }
  (studio.dataViews ??= {}).review = new Review();
})();
