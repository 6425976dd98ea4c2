/* The documents view of the Chat tab: collections, what is in them, how it was cut, and what the guard flagged. Asking is retrieval_ask.js. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEY = "studio-collection", PAGE = 30;
  const num = (n) => Number(n || 0).toLocaleString("en");
  const option = (value, label, now) => `<option value="${esc(value)}" ${String(value) === String(now) ? "selected" : ""}>${esc(label)}</option>`;
  const flags = (list) => list.map((f) => `<li class="st-finding st-level-warning"><b>${esc(t(`retrieval.flag.${f.code}`))}</b><span>${esc(f.words)}</span></li>`).join("");

  class Documents {
    constructor({ root }) {
      Object.assign(this, { root, part: "ask", offset: 0, filter: { document: "", text: "", flagged: false } });
      root.innerHTML = `<div class="rt"><aside class="rt-rail" aria-label="${esc(t("retrieval.collections"))}"><button type="button" class="st-btn" data-new>${esc(t("retrieval.new"))}</button><ul class="rt-list"></ul></aside>
        <section class="rt-main"></section></div>`;
      this.$ = (selector) => root.querySelector(selector);
      root.addEventListener("click", (event) => this.click(event));
      root.addEventListener("change", (event) => this.change(event));
      studio.plays.documents = { shown: () => this.load() };
      if (studio.playing() === "documents") this.load();
    }

    async load() {
      try { this.facts = await studio.call("collections", { all: true }); } catch (error) { return this.failed(error); }
      const list = this.facts.collections, wanted = this.now?.id || localStorage.getItem(KEY);
      const id = list.find((c) => c.id === wanted)?.id || list[0]?.id;
      this.rail();
      if (!id) { this.now = null; return this.draw(); }
      if (this.now?.id !== id || this.now.state === "building") await this.open(id);
    }

    failed(error) { this.$(".rt-main").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }

    async open(id) {
      try { this.now = await studio.call("collection", { id }); } catch (error) { return this.failed(error); }
      localStorage.setItem(KEY, id);
      this.offset = 0;
      this.filter = { document: "", text: "", flagged: false };
      if (this.now.state !== "ready" && this.part !== "documents") this.part = "documents";
      this.draw();
      this.watch();
    }

    /** While the index is being built. */
    watch() {
      clearInterval(this.timer);
      if (this.now?.state !== "building") return;
      const id = this.now.id;
      this.timer = setInterval(async () => {
        if (document.visibilityState !== "visible" || this.now?.id !== id) return;
        let found;
        try { found = await studio.call("collection", { id }); } catch { return; }
        if (found.state === "building" || this.now?.id !== id) return;
        clearInterval(this.timer);
        this.now = found;
        if (found.state === "ready") studio.say(t("retrieval.built.said", { n: found.built.chunks }));
        this.draw();
        this.refresh();
      }, 600);
    }

    async refresh() {
      try { this.facts.collections = (await studio.call("collections")).collections; this.rail(); } catch { /* the rail is as it was */ }
    }

    rail() {
      this.$(".rt-list").innerHTML = this.facts.collections.map((c) => `<li class="${c.id === this.now?.id ? "rt-now" : ""}"><button type="button" data-open="${c.id}" aria-current="${c.id === this.now?.id}"><b>${esc(c.name)}</b><small>${esc(t("retrieval.sum", { documents: num(c.documents), chunks: num(c.chunks) }))}</small></button></li>`).join("");
    }

    /* ---- the frame of one collection */

    draw() {
      const c = this.now, place = this.$(".rt-main");
      if (this.facts) this.rail();
      if (!c) {
        place.innerHTML = `<div class="st-empty rt-none"><b>${esc(t("retrieval.none"))}</b><p>${esc(t("retrieval.lead"))}</p><button type="button" class="st-btn st-primary" data-new>${esc(t("retrieval.new"))}</button></div>`;
        return;
      }
      const parts = ["ask", "documents", "chunks"], count = { documents: c.documents.length, chunks: c.built.chunks };
      place.innerHTML = `<header class="rt-head"><h1>${esc(c.name)}</h1><button type="button" class="st-link" data-rename>${esc(t("retrieval.rename"))}</button><button type="button" class="st-link" data-delete>${esc(t("retrieval.delete"))}</button>
        <div class="st-views rt-parts" role="tablist" aria-label="${esc(t("retrieval.parts"))}">${parts.map((p) => `<button type="button" role="tab" data-part="${p}" aria-selected="${p === this.part}">${esc(t(`retrieval.part.${p}`))}${count[p] ? ` <small>${num(count[p])}</small>` : ""}</button>`).join("")}</div></header><div class="rt-body"></div>`;
      this[this.part](place.querySelector(".rt-body"));
    }

    ask(place) {
      if (this.now.state !== "ready" && !this.now.index) {
        place.innerHTML = `<div class="st-empty"><b>${esc(t(`retrieval.state.${this.now.state}`))}</b><p>${esc(t("retrieval.ask.first"))}</p></div>`;
        return;
      }
      new studio.RetrievalAsk(place, this);
    }

    documents(place) {
      const c = this.now, f = this.facts, s = c.settings, busy = c.state === "building";
      const row = (d) => `<tr><th scope="row"><button type="button" class="st-link" data-read="${d.id}">${esc(d.name)}</button>${d.hidden ? `<span class="st-tag rt-warn" title="${esc(t("retrieval.hidden.hint"))}">${esc(t("retrieval.hidden", { n: d.hidden }))}</span>` : ""}</th>
        <td>${num(d.chars)}</td><td>${d.chunks ? `<button type="button" class="st-link" data-chunks="${d.id}">${num(d.chunks)}</button>` : "–"}</td><td><button type="button" class="st-icon" data-remove="${d.id}" ${busy ? "disabled" : ""} aria-label="${esc(t("retrieval.remove", { name: d.name }))}">×</button></td></tr>`;
      place.innerHTML = `<div class="rt-two"><section class="st-card"><h2>${esc(t("retrieval.part.documents"))}</h2>
          ${c.documents.length ? `<div class="rt-scroll"><table class="st-table"><thead><tr><th>${esc(t("retrieval.document"))}</th><th>${esc(t("retrieval.characters"))}</th><th>${esc(t("retrieval.part.chunks"))}</th><th></th></tr></thead><tbody>${c.documents.map(row).join("")}</tbody></table></div>` : `<p class="st-muted">${esc(t("retrieval.empty"))}</p>`}
          <label class="dt-drop rt-drop" for="rt-files"><b>${esc(t("retrieval.drop"))}</b><span>${esc(t("retrieval.kinds"))}</span></label><input type="file" id="rt-files" multiple class="st-visually-hidden" aria-label="${esc(t("retrieval.drop"))}" ${busy ? "disabled" : ""}>
          <div class="rt-add"><label class="rt-field"><span>${esc(t("retrieval.dataset"))}</span><select data-dataset ${busy ? "disabled" : ""}>${option("", t("retrieval.dataset.choose"), "")}${f.datasets.map((d) => option(d.ref, d.label, "")).join("")}</select></label><button type="button" class="st-btn" data-paste ${busy ? "disabled" : ""}>${esc(t("retrieval.paste"))}</button></div>
          <div class="rt-adding" role="status"></div></section>
        <section class="st-card"><h2>${esc(t("retrieval.cut"))}</h2><p class="st-muted">${esc(t("retrieval.cut.help"))}</p>
          <form class="rt-set">${["size", "overlap"].map((name) => `<label class="rt-field"><span>${esc(t(`retrieval.set.${name}`))}</span><input name="${name}" inputmode="numeric" value="${esc(s[name])}"></label>`).join("")}
          <label class="rt-field rt-wide"><span>${esc(t("retrieval.set.embedder"))}</span><input name="embedder" list="rt-embedders" value="${esc(s.embedder)}" placeholder="${esc(t("retrieval.embedder.none"))}"><datalist id="rt-embedders">${f.embedders.map((e) => `<option value="${esc(e.path)}">${esc(e.name)}</option>`).join("")}</datalist></label>
          <p class="st-muted rt-wide">${esc(t(s.embedder ? "retrieval.embedder.given" : "retrieval.embedder.words"))}</p>
          <div class="rt-wide rt-actions"><button type="submit" class="st-btn st-primary" ${busy || !c.documents.length ? "disabled" : ""}>${esc(t(c.index ? "retrieval.rebuild" : "retrieval.build"))}</button><span role="status" class="${busy ? "st-working" : "st-muted"}">${esc(this.told())}</span></div></form>
          ${c.error ? `<p class="st-finding st-level-error"><b>${esc(c.error.message)}</b><span>${esc(c.error.hint || "")}</span></p>` : ""}</section></div>`;
      place.querySelector("form").onsubmit = (event) => { event.preventDefault(); this.build(event.target); };
      const drop = place.querySelector(".rt-drop");
      drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("dt-over"); };
      drop.ondragleave = () => drop.classList.remove("dt-over");
      drop.ondrop = (event) => { event.preventDefault(); drop.classList.remove("dt-over"); this.upload([...event.dataTransfer.files]); };
    }

    told() {
      const c = this.now, b = c.built;
      if (c.state !== "ready") return t(`retrieval.state.${c.state}`);
      return t("retrieval.built", { chunks: num(b.chunks), words: num(b.words), flagged: num(b.flagged), seconds: studio.num(b.seconds, 3) });
    }

    async change(event) {
      if (event.target.id === "rt-files") { const files = [...event.target.files]; event.target.value = ""; return this.upload(files); }
      if (event.target.matches("[data-dataset]") && event.target.value) return this.add([{ name: event.target.selectedOptions[0].textContent, ref: event.target.value }]);
      if (event.target.closest(".rt-filter")) {
        this.filter = { document: this.$("[name=document]").value, text: this.$("[name=text]").value, flagged: this.$("[name=flagged]").checked };
        this.offset = 0;
        this.page();
      }
    }

    async upload(files) {
      this.add(files.map((file) => ({ name: file.name, file })));
    }

    /** Put sources in one after the other; what cannot be read is told and does not keep the others out. */
    async add(sources) {
      const id = this.now.id, bad = [];
      for (const source of sources) {
        const status = this.$(".rt-adding");
        if (status) status.innerHTML = `<p class="st-working">${esc(t("retrieval.adding", { name: source.name }))}</p>`;
        try {
          let ref = source.ref || "";
          if (source.file) {
            const body = new FormData();
            body.append("files", source.file);
            const answer = await fetch("gradio_api/upload", { method: "POST", body });
            if (!answer.ok) throw { message: t("data.upload.refused", { name: source.name }), hint: answer.status === 413 ? t("data.upload.large") : "" };
            ref = (await studio.call("data_upload", { path: (await answer.json())[0] })).ref;
          }
          const found = await studio.call("collection_add", { id, ref, title: source.title || "", text: source.text || "" });
          if (this.now?.id === id) this.now = found;
        } catch (error) { bad.push(error); }
      }
      if (this.now?.id === id && this.part === "documents") this.draw();
      const status = this.$(".rt-adding");
      if (status) status.innerHTML = bad.map((error) => `<p class="st-finding st-level-error"><b>${esc(error.message)}</b><span>${esc(error.hint || "")}</span></p>`).join("");
      if (bad.length < sources.length) { this.refresh(); if (this.now?.id === id) this.build(null); }
    }

    /** Build the index, with the settings of the form where one is given. */
    async build(form) {
      const id = this.now.id;
      try {
        if (form) {
          const v = Object.fromEntries(new FormData(form));
          this.now = await studio.call("collection_save", { id, values: { size: Number(v.size), overlap: Number(v.overlap), embedder: v.embedder } });
        }
        this.now = await studio.call("collection_build", { id });
      } catch (error) {
        const field = error.field && form?.elements[error.field];
        if (field) { field.setAttribute("aria-invalid", "true"); field.focus(); }
        return studio.failed(error);
      }
      const kept = this.$(".rt-adding")?.innerHTML;
      this.draw();
      if (kept && this.$(".rt-adding")) this.$(".rt-adding").innerHTML = kept;
      this.watch();
    }

    /* ---- chunks */

    chunks(place) {
      const c = this.now;
      if (!c.index) { place.innerHTML = `<div class="st-empty"><b>${esc(t(`retrieval.state.${c.state}`))}</b><p>${esc(t("retrieval.ask.first"))}</p></div>`; return; }
      place.innerHTML = `<div class="rt-filter"><label class="rt-field"><span>${esc(t("retrieval.document"))}</span><select name="document">${option("", t("retrieval.all"), this.filter.document)}${c.documents.map((d) => option(d.id, d.name, this.filter.document)).join("")}</select></label>
        <label class="rt-field"><span>${esc(t("retrieval.with_text"))}</span><input name="text" type="search" value="${esc(this.filter.text)}"></label><label class="st-check"><input type="checkbox" name="flagged" ${this.filter.flagged ? "checked" : ""}>${esc(t("retrieval.flagged_only"))}</label></div>
        <p class="st-muted rt-reasons"></p><div class="rt-chunks"></div><div class="rt-pages"></div>`;
      this.page();
    }

    async page() {
      const id = this.now.id, mine = (this.asked = (this.asked || 0) + 1);
      let found;
      try { found = await studio.call("collection_chunks", { id, ...this.filter, offset: this.offset, limit: PAGE }); } catch (error) { return studio.failed(error); }
      const place = this.$(".rt-chunks");
      if (mine !== this.asked || !place) return;
      this.rows = found.rows;
      const reasons = Object.entries(found.flags);
      this.$(".rt-reasons").textContent = reasons.length ? t("retrieval.reasons", { list: reasons.map(([code, n]) => `${t(`retrieval.flag.${code}`)} (${n})`).join(", ") }) : t("retrieval.reasons.none");
      place.innerHTML = found.rows.map((row) => this.chunk(row)).join("") || `<div class="st-empty"><b>${esc(t("retrieval.no_chunks"))}</b></div>`;
      const last = Math.min(this.offset + PAGE, found.total);
      this.$(".rt-pages").innerHTML = found.total > PAGE ? `<button type="button" class="st-btn st-small" data-page="${this.offset - PAGE}" ${this.offset ? "" : "disabled"}>${esc(t("retrieval.before"))}</button><span class="st-muted">${esc(t("retrieval.page", { from: num(this.offset + 1), to: num(last), total: num(found.total) }))}</span><button type="button" class="st-btn st-small" data-page="${this.offset + PAGE}" ${last < found.total ? "" : "disabled"}>${esc(t("retrieval.after"))}</button>` : "";
    }

    chunk(row) {
      return `<article class="rt-chunk${row.flags.length ? " rt-flagged" : ""}" data-chunk="${row.id}"><header><b>#${row.id + 1}</b><button type="button" class="st-link" data-read="${row.document}" data-start="${row.start}" data-end="${row.end}">${esc(row.title)}${row.place ? ` · ${esc(row.place)}` : ""}</button><small>${esc(t("retrieval.words", { n: num(row.words) }))}</small>
        ${row.flags.length ? `<span class="st-tag rt-warn">${esc(t(row.let_in ? "retrieval.is_in" : "retrieval.is_out"))}</span><button type="button" class="st-btn st-small" data-let="${row.id}" data-yes="${!row.let_in}">${esc(t(row.let_in ? "retrieval.leave_out" : "retrieval.let_in"))}</button>` : ""}</header>
        <p>${esc(row.text)}</p>${row.flags.length ? `<ul class="st-findings">${flags(row.flags)}</ul>` : ""}</article>`;
    }

    async letIn(chunk, yes) {
      if (yes && (await studio.ask(t("retrieval.let_in"), `<p>${esc(t("retrieval.let_in.risk"))}</p>`, t("retrieval.let_in"), true)) === null) return false;
      try { this.now = await studio.call("collection_let_in", { id: this.now.id, chunk, yes }); } catch (error) { studio.failed(error); return false; }
      return true;
    }

    /* ---- what is pressed */

    async click(event) {
      const button = event.target.closest("button"), d = button?.dataset;
      if (!d) return;
      if (d.new !== undefined) return this.create();
      if (d.open) return this.open(d.open);
      if (d.part) { this.part = d.part; return this.draw(); }
      if (d.rename !== undefined) return this.rename();
      if (d.delete !== undefined) return this.remove();
      if (d.paste !== undefined) return this.paste();
      if (d.read) return this.read(d.read, d.start, d.end);
      if (d.page) { this.offset = Math.max(0, Number(d.page)); await this.page(); return this.$(".rt-body").scrollTo(0, 0); }
      if (d.chunks) { this.part = "chunks"; this.filter = { document: d.chunks, text: "", flagged: false }; this.offset = 0; return this.draw(); }
      if (d.remove) {
        try { this.now = await studio.call("collection_remove", { id: this.now.id, document: d.remove }); } catch (error) { return studio.failed(error); }
        this.draw();
        this.refresh();
        if (this.now.documents.length) this.build(null);
      }
      if (d.let && this.part === "chunks" && (await this.letIn(Number(d.let), d.yes === "true"))) this.page();
    }

    async create() {
      const given = await studio.ask(t("retrieval.new"), `<label class="rt-field"><span>${esc(t("retrieval.name"))}</span><input name="name" maxlength="120" required autofocus></label>`, t("retrieval.create"));
      if (!given) return;
      try { this.now = await studio.call("collection_save", { name: given.name }); } catch (error) { return studio.failed(error); }
      localStorage.setItem(KEY, this.now.id);
      this.part = "documents";
      await this.load();
      this.draw();
    }

    async rename() {
      const given = await studio.ask(t("retrieval.rename"), `<label class="rt-field"><span>${esc(t("retrieval.name"))}</span><input name="name" maxlength="120" required value="${esc(this.now.name)}"></label>`, t("retrieval.rename"));
      if (!given) return;
      try { this.now = await studio.call("collection_save", { id: this.now.id, name: given.name }); } catch (error) { return studio.failed(error); }
      this.draw();
      this.refresh();
    }

    async remove() {
      if ((await studio.ask(t("retrieval.delete"), `<p>${esc(t("retrieval.delete.sure", { name: this.now.name }))}</p>`, t("retrieval.delete"), true)) === null) return;
      try { await studio.call("collection_remove", { id: this.now.id }); } catch (error) { return studio.failed(error); }
      this.now = null;
      this.load();
    }

    async paste() {
      const given = await studio.ask(t("retrieval.paste"), `<label class="rt-field"><span>${esc(t("retrieval.paste.title"))}</span><input name="title" maxlength="120"></label><label class="rt-field"><span>${esc(t("retrieval.paste.text"))}</span><textarea name="text" rows="10" required></textarea></label>`, t("retrieval.paste.add"));
      if (given) this.add([{ name: given.title || t("retrieval.paste"), ...given }]);
    }

    /** A document with one place of it marked; of a long one the part around that place. */
    async read(id, start, end) {
      let found;
      try { found = await studio.call("collection_document", { id: this.now.id, document: id }); } catch (error) { return studio.failed(error); }
      const from = Number(start ?? 0), to = Number(end ?? 0), low = Math.max(0, from - 20000), high = Math.min(found.text.length, Math.max(to, from) + 20000);
      const cut = (a, b) => esc(found.text.slice(a, b));
      const secret = found.hidden.length ? `<details class="rt-secret"><summary>${esc(t("retrieval.hidden", { n: found.hidden.length }))}</summary><p class="st-muted">${esc(t("retrieval.hidden.hint"))}</p><ul class="st-findings">${found.hidden.map((h) => `<li class="st-finding st-level-warning"><b>${esc(t(`retrieval.kind.${h.kind}`))}</b><span>${esc(h.text)}</span></li>`).join("")}</ul></details>` : "";
      const closed = studio.ask(found.name, `${secret}${low ? `<p class="st-muted">…</p>` : ""}<div class="rt-text" tabindex="0">${cut(low, from)}${end ? `<mark>${cut(from, to)}</mark>` : ""}${cut(to, high)}</div>${high < found.text.length ? `<p class="st-muted">${esc(t("retrieval.shortened"))}</p>` : ""}`, "");
      document.querySelector("dialog.st-dialog:last-of-type")?.classList.add("rt-reader");
      document.querySelector(".rt-reader mark")?.scrollIntoView({ block: "center" });
      return closed;
    }
  }

  studio.retrievalFlags = flags;
  studio.parts.documents = (context) => new Documents(context);
})();
