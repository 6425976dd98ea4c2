/* Beside the form: what the model will see, what is in the data, and the recipe as YAML. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const VIEWS = ["preview", "data", "yaml"];
  /* What rows a method reads (its shape; plain training: its kind) -> formats of shipped datasets that hold such rows. */
  const FITS = { pairs: ["preference"], unpaired: ["rated", "preference"], prompts: ["alpaca", "messages"], chats: ["messages", "alpaca"], sft: ["messages", "alpaca"], pretrain: ["text"] };

  const visible = (text) => esc(text).replace(/ /g, "\u0001").replace(/\n/g, '<i class="st-nl">↵</i>\n').replace(/\u0001/g, '<i class="st-sp">·</i>');

  /** Tokens as the model reads them: [{id, text, trained, special, differs}]. */
  studio.tokens = (tokens, label = t("preview.tokens")) => `<div class="st-tokens" tabindex="0" aria-label="${esc(label)}">${tokens.map((token) =>
    `<span class="st-token${token.trained ? " st-trained" : ""}${token.special ? " st-special" : ""}${token.differs ? " st-differs" : ""}" title="${esc(t("preview.token", { id: token.id }))}">${visible(token.text)}</span>`).join("")}</div>`;

  /* A tab that shows something else beside its form extends this with views of its own. */
  class Panel {
    constructor({ root, props }, views = VIEWS) {
      Object.assign(this, { root, tab: props.tab, views, view: views[0], index: 0, seen: {}, ask: 0 });
      root.innerHTML = `<div class="st-card st-panel"><div class="st-views" role="tablist">${views.map((v) =>
        `<button type="button" role="tab" id="${this.tab}-view-${v}" data-view="${v}" aria-selected="${v === this.view}">${esc(t(`panel.${v}`))}</button>`).join("")}</div>
        ${views.map((v) => `<div class="st-view" role="tabpanel" data-panel="${v}" aria-labelledby="${this.tab}-view-${v}" ${v === this.view ? "" : "hidden"}></div>`).join("")}</div>`;
      this.place = Object.fromEntries(views.map((v) => [v, root.querySelector(`[data-panel=${v}]`)]));
      root.querySelector(".st-views").addEventListener("click", (event) => event.target.dataset.view && this.open(event.target.dataset.view));
      this.begin();
      window.addEventListener("studio:form", (event) => event.detail === this.tab && this.take());
      this.take();
    }

    /** What stands in the views before anything is known. */
    begin() {
      this.empty("preview", "preview.empty", "preview.empty.hint");
      this.empty("data", "data.empty", "data.empty.hint");
    }

    empty(view, title, hint) {
      this.place[view].innerHTML = `<div class="st-empty"><b>${esc(t(title))}</b><p>${esc(t(hint))}</p></div>`;
    }

    /** Without a dataset: the shipped ones that this method can learn from, one click away. */
    async offer({ kind, method }) {
      this.empty("preview", "preview.empty", "preview.empty.hint");
      const mine = ++this.ask, wanted = FITS[studio.methodOf(kind, method).shape || kind] || [];
      const shipped = await (studio.shipped ??= studio.call("library").then(({ datasets }) => datasets.filter((d) => d.kind === "shipped"))).catch(() => (studio.shipped = null));
      const fitting = wanted.map((format) => shipped?.find((d) => d.format === format)).filter(Boolean);
      if (mine !== this.ask || !fitting.length) return;
      const place = document.createElement("div");
      place.className = "st-offers";
      place.innerHTML = `<p>${esc(t("offer.lead"))}</p>${fitting.map((d) => `<button type="button" data-ref="${esc(d.ref)}"><b>${esc(d.label)}</b><small>${esc(t("offer.rows", { n: studio.num(d.rows) }))}</small><span>${esc(d.detail)}</span></button>`).join("")}`;
      place.onclick = (event) => {
        const ref = event.target.closest("[data-ref]")?.dataset.ref;
        if (ref) studio.send(`open_${this.tab}`, { values: { dataset: ref } });
      };
      this.place.preview.append(place);
    }

    problem(view, error) {
      this.place[view].innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p><button type="button" class="st-btn st-small" data-retry>${esc(t("panel.again"))}</button></div>`;
      this.place[view].querySelector("[data-retry]").onclick = () => { delete this.seen[view]; this.take(); };
    }

    open(view) {
      this.view = view;
      for (const button of this.root.querySelectorAll("[role=tab]")) {
        button.setAttribute("aria-selected", String(button.dataset.view === view));
      }
      for (const v of this.views) this.place[v].hidden = v !== view;
      this.take();
    }

    take() {
      const state = studio.forms[this.tab];
      if (!state) return;
      this.state = state;
      if (this.view === "yaml") return this.yaml();
      if (state.yaml_error) return this.open("yaml");
      this.show(state);
    }

    /** Bring the view that is in sight up to date with the form. */
    show(state) {
      const values = state.values, relevant = {};
      for (const name of Object.keys(values))
        if (state.groups[name] === "basic" && name !== "name" || ["chat_template", "packing", "method", "kind"].includes(name)) relevant[name] = values[name];
      const key = JSON.stringify(relevant);
      if (this.seen[this.view] === key) return;
      this.seen[this.view] = key;
      clearTimeout(this.wait);
      this.wait = setTimeout(() => (this.view === "data" ? this.data() : this.preview(relevant !== this.last)), 250);
    }

    async data() {
      const ref = this.state.values.dataset;
      if (!ref) return this.empty("data", "data.empty", "data.empty.hint");
      const mine = ++this.ask;
      this.place.data.innerHTML = `<div class="st-working" role="status">${esc(t("data.reading"))}</div>`;
      try {
        const columns = this.state.values.columns || {};
        let found, wrong;
        try { found = await studio.call("inspect", { ref, columns }); } catch (error) {
          if (!Object.keys(columns).length) throw error;
          found = await studio.call("inspect", { ref });  // so that the columns can be mended here
          wrong = { severity: "error", message: error.message, hint: error.hint };
        }
        if (wrong) found.findings = [wrong, ...found.findings.filter((f) => f.code !== "unknown_format")];
        if (mine === this.ask) this.drawData(found);
      } catch (error) { if (mine === this.ask) this.problem("data", error); }
    }

    drawData(found) {
      const roles = [...Object.keys(found.roles), ...found.offer.filter((role) => !(role in found.roles))].map((role) => [role, found.roles[role]]);
      const chosen = this.state.values.columns || {};
      const columns = found.columns || [];
      const finding = (f) => `<li class="st-finding st-level-${esc(f.severity)}"><b>${esc(f.message)}</b>${f.hint ? `<span>${esc(f.hint)}</span>` : ""}${(f.examples || []).length ? `<small>${f.examples.slice(0, 3).map(esc).join("<br>")}</small>` : ""}</li>`;
      const pick = (role, column) => `<label class="st-role"><span>${esc(role)}</span><select data-role="${esc(role)}">${column == null || chosen[role] ? `<option value="">${esc(t("data.none"))}</option>` : ""}${columns.map((c) =>
        `<option ${c === (chosen[role] ?? column) ? "selected" : ""}>${esc(c)}</option>`).join("")}</select></label>`;
      this.place.data.innerHTML = `<dl class="st-tiles"><div><dt>${esc(t("data.format"))}</dt><dd>${esc(found.title || "–")}</dd></div>
        <div><dt>${esc(t("data.rows"))}</dt><dd>${found.rows_exact ? "" : "≈ "}${studio.num(found.rows)}</dd></div></dl>
        ${[...found.evidence, ...found.notes].length ? `<p class="st-muted">${[...found.evidence, ...found.notes].map(esc).join(" ")}</p>` : ""}
        ${roles.length ? `<h3>${esc(t("data.columns"))}</h3><p class="st-muted">${esc(t("data.columns.help"))}</p><div class="st-roles">${roles.map(([r, c]) => pick(r, c)).join("")}</div>` : ""}
        ${(found.findings || []).length ? `<h3>${esc(t("data.findings"))}</h3><ul class="st-findings">${found.findings.map(finding).join("")}</ul>` : `<p class="st-good">${esc(t("data.clean"))}</p>`}`;
      for (const select of this.place.data.querySelectorAll("select"))
        select.onchange = () => {
          const next = { ...(this.state.values.columns || {}) };
          const role = select.dataset.role;
          if (!select.value || (select.value === found.roles[role] && !chosen[role])) delete next[role]; else next[role] = select.value;
          studio.send(`open_${this.tab}`, { values: { columns: next } });
        };
    }

    async preview() {
      const values = this.state.values;
      if (!values.dataset) return this.offer(values);
      const mine = ++this.ask;
      const place = this.place.preview;
      if (!place.querySelector(".st-tokens")) place.innerHTML = `<div class="st-working" role="status">${esc(t("preview.working"))}</div>`;
      place.setAttribute("aria-busy", "true");
      try {
        const found = await studio.call("preview", { values, index: this.index });
        if (mine === this.ask) this.drawPreview(found);
      } catch (error) { if (mine === this.ask) this.problem("preview", error); }
      if (mine === this.ask) place.removeAttribute("aria-busy");
    }

    drawPreview(found) {
      const place = this.place.preview, tokens = found.tokens || [];
      const total = found.rows ?? found.total ?? 0;
      this.index = found.index ?? this.index;
      const trained = tokens.filter((token) => token.trained).length, spread = found.lengths;
      const flags = (found.flags || []).map((f) => `<li class="st-finding st-level-${esc(f.level || (f.code === "converted" ? "info" : "warning"))}"><b>${esc(f.message || f.text || f)}</b>${f.hint ? `<span>${esc(f.hint)}</span>` : ""}</li>`).join("");
      place.innerHTML = `<div class="st-preview-bar"><button type="button" class="st-icon" data-go="-1" aria-label="${esc(t("preview.previous"))}">‹</button>
        <label>${esc(t("preview.sample"))} <input type="number" min="1" max="${total}" value="${this.index + 1}" aria-label="${esc(t("preview.sample"))}"></label>
        <span class="st-muted">${esc(t("preview.of", { n: studio.num(total) }))}</span>
        <button type="button" class="st-icon" data-go="1" aria-label="${esc(t("preview.next"))}">›</button>
        ${found.sides ? "" : `<span class="st-legend"><mark class="st-trained">${esc(t("preview.trained"))}</mark><span>${esc(t("preview.context"))}</span></span>`}</div>
        <p class="st-muted st-lengths">${found.sides ? "" : `${esc(t("preview.lengths", { n: found.kept ?? tokens.length, trained: found.trained ?? trained }))}${spread ? "<br>" : ""}`}${spread ? esc(t("preview.spread", spread)) : ""}${found.truncated ? ` <b class="st-warn">${esc(t("preview.cut", { n: found.truncated, of: found.measured }))}</b>` : ""}</p>
        ${flags ? `<ul class="st-findings">${flags}</ul>` : ""}
        ${found.sides ? studio.sides(found.sides, studio.methodOf(this.state.values.kind, this.state.values.method).shape) : studio.tokens(tokens)}`;
      const go = (index) => { this.index = Math.max(0, Math.min(total - 1, index)); this.preview(); };
      for (const button of place.querySelectorAll("[data-go]")) button.onclick = () => go(this.index + Number(button.dataset.go));
      place.querySelector("input").onchange = (event) => go(Number(event.target.value) - 1 || 0);
    }

    yaml() {
      const state = this.state, place = this.place.yaml;
      let area = place.querySelector("textarea");
      if (!area) {
        place.innerHTML = `<p class="st-muted">${esc(t("yaml.help"))}</p><textarea spellcheck="false" id="${this.tab}-yaml" aria-label="${esc(t("panel.yaml"))}"></textarea>
          <p class="st-yaml-error" role="alert" hidden></p>
          <div class="st-actions"><button type="button" class="st-btn st-primary" data-apply>${esc(t("yaml.apply"))}</button>
          <button type="button" class="st-btn" data-copy>${esc(t("action.copy"))}</button><button type="button" class="st-btn" data-download>${esc(t("yaml.download"))}</button></div>`;
        area = place.querySelector("textarea");
        place.querySelector("[data-apply]").onclick = () => { this.typed = false; studio.send(`open_${this.tab}`, { yaml: area.value }); };
        place.querySelector("[data-copy]").onclick = (event) => studio.copy(area.value, event.target);
        place.querySelector("[data-download]").onclick = () => {
          const link = document.createElement("a");
          link.href = URL.createObjectURL(new Blob([area.value], { type: "text/yaml" }));
          link.download = `${this.state.values.name || this.state.values.kind}.yaml`;
          link.click();
          URL.revokeObjectURL(link.href);
        };
        area.oninput = () => (this.typed = true);
      }
      const note = place.querySelector(".st-yaml-error"), wrong = state.yaml_error;
      note.hidden = !wrong;
      note.textContent = wrong ? `${wrong.field ? `${wrong.field}: ` : ""}${wrong.message} ${wrong.hint || ""}` : "";
      if (!this.typed && area.value !== state.yaml) area.value = state.yaml;
    }
  }
  studio.Panel = Panel;
  studio.parts.panel = (context) => new Panel(context);
})();
