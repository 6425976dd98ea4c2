/* Bring in: files, paths, Hub sets and shipped sets become one dataset; what each was taken for is shown and can be put right. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { Form, icons, num, total } = studio.dataParts;
  const HUB = /^(?:hub:|https:\/\/huggingface\.co\/datasets\/)?([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)\/?$/;
  const ENDING = /\.(jsonl?|ndjson|csv|tsv|parquet|txt|md|pdf|docx|html?|ya?ml|gz|zip|bz2|xz|zst)$/i;

  class Bring {
    constructor(frame, place) {
      Object.assign(this, { frame, place, sources: [], columns: {}, format: "auto", asked: 0 });
      place.innerHTML = `<div class="dt-page"><header class="dt-page-head"><h1>${esc(t("data.bring.title"))}</h1><p class="st-muted">${esc(t("data.bring.lead"))}</p></header>
        <div class="st-card dt-bring"><label class="dt-drop" for="data-files">${icons.upload}<b>${esc(t("data.bring.drop"))}</b><span>${esc(t("data.bring.kinds"))}</span></label>
          <input type="file" id="data-files" multiple class="st-visually-hidden" aria-label="${esc(t("data.bring.choose"))}">
          <form class="dt-address"><input type="text" id="data-address" autocomplete="off" spellcheck="false" placeholder="${esc(t("data.bring.address.example"))}" aria-label="${esc(t("data.bring.address"))}">
            <span class="dt-hub" hidden><input type="text" id="data-subset" placeholder="${esc(t("data.bring.subset"))}" aria-label="${esc(t("data.bring.subset"))}"><input type="text" id="data-split" placeholder="${esc(t("data.bring.split"))}" aria-label="${esc(t("data.bring.split"))}"></span>
            <button type="submit" class="st-btn">${esc(t("data.bring.add"))}</button><button type="button" class="st-btn" data-search>${esc(t("hub.search.open"))}</button></form>
          <div class="dt-hand"></div></div>
        <div class="dt-sources" id="data-sources"></div><div class="dt-problems" role="alert"></div>
        <div class="st-card dt-finish" hidden><div class="dt-form"></div><div class="st-actions"><button type="button" class="st-btn st-primary" id="data-bring-start">${esc(t("data.bring.start"))}</button><span class="st-muted" data-sum></span></div></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      const files = this.$("#data-files"), address = this.$("#data-address");
      files.onchange = () => { this.upload([...files.files]); files.value = ""; };
      address.oninput = () => (this.$(".dt-hub").hidden = !this.isHub(address.value));
      this.$(".dt-address").onsubmit = (event) => { event.preventDefault(); this.addAddress(address.value.trim()); };
      this.$("[data-search]").onclick = () => studio.hub("dataset", "data");
      this.$(".dt-sources").addEventListener("click", (event) => this.click(event));
      this.$(".dt-sources").addEventListener("change", (event) => this.change(event));
      this.$(".dt-hand").onclick = (event) => { const ref = event.target.closest("[data-ref]")?.dataset.ref; if (ref) this.add(ref); };
      this.$("#data-bring-start").onclick = () => this.start();
    }

    /** What is at hand may have changed. */
    refresh() {
      const { datasets, steps } = this.frame.state, step = steps.find((s) => s.name === "import");
      const hand = datasets.filter((d) => d.kind === "shipped" || d.kind === "upload");
      this.$(".dt-hand").innerHTML = hand.length ? `<span class="st-muted">${esc(t("data.bring.hand"))}</span>${hand.slice(0, 14).map((d) => `<button type="button" class="dt-chip" data-ref="${esc(d.ref)}" title="${esc(d.detail || d.ref)}">${esc(d.label)}</button>`).join("")}` : "";
      if (!this.form && step) this.form = new Form(this.$(".dt-form"), step.fields, {}, { ...this.frame.context(), skip: ["dataset", "sources", "columns", "format"] });
      this.step = step;
    }

    isHub(text) { return HUB.test(text.trim()) && !ENDING.test(text.trim()) && !/^[./~]/.test(text.trim()); }

    addAddress(text) {
      if (!text) return;
      const subset = this.$("#data-subset").value.trim(), split = this.$("#data-split").value.trim();
      const part = subset ? `#${subset}/${split}` : split ? `#${split}` : "";
      this.add(this.isHub(text) ? `hub:${HUB.exec(text)[1]}${part}` : text);
      for (const id of ["address", "subset", "split"]) this.$(`#data-${id}`).value = "";
      this.$(".dt-hub").hidden = true;
    }

    add(ref, label = "") {
      if (this.sources.some((s) => s.ref === ref)) return;
      const known = this.frame.state.datasets.find((d) => d.ref === ref), source = { ref, label: label || known?.label || ref, state: "reading" };
      this.sources.push(source);
      this.draw();
      return this.look(source);
    }

    async look(source) {
      const mine = (source.asked = ++this.asked);
      source.state = "reading";
      this.draw();
      try {
        const found = await studio.call("data_inspect", { ref: source.ref, columns: this.columns, format: this.format });
        if (mine === source.asked) Object.assign(source, { state: "found", found, error: null, known: source.known || found });
      } catch (error) {
        if (mine === source.asked) Object.assign(source, { state: error.field === "columns" && source.known ? "found" : "bad", error });
      }
      this.draw();
    }

    upload(files) {
      return Promise.all(files.map(async (file) => {
        const source = { ref: `upload:${file.name}:${Math.random()}`, label: file.name, state: "uploading", share: 0 };
        this.sources.push(source);
        this.draw();
        try {
          const path = await this.send(file, (share) => { source.share = share; this.draw(); });
          const made = await studio.call("data_upload", { path });
          if (!this.sources.includes(source)) return;
          if (this.sources.some((s) => s.ref === made.ref)) this.sources.splice(this.sources.indexOf(source), 1);
          else { Object.assign(source, { ref: made.ref, label: made.name }); await this.look(source); }
        } catch (error) { Object.assign(source, { state: "bad", error }); }
        this.draw();
      }));
    }

    send(file, told) {
      return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest(), body = new FormData();
        body.append("files", file);
        request.open("POST", "gradio_api/upload");
        request.upload.onprogress = (event) => event.lengthComputable && told(event.loaded / event.total);
        request.onload = () => { try { resolve(JSON.parse(request.responseText)[0]); } catch { reject({ message: t("data.upload.refused", { name: file.name }), hint: request.status === 413 ? t("data.upload.large") : request.responseText.slice(0, 200) }); } };
        request.onerror = () => reject({ message: t("data.upload.refused", { name: file.name }), hint: t("app.offline.hint") });
        request.send(body);
      });
    }

    draw() {
      const focus = document.activeElement?.closest?.(".dt-source") && document.activeElement.dataset.role;
      this.$(".dt-sources").innerHTML = this.sources.map((s, i) => this.card(s, i)).join("");
      if (focus) this.$(`[data-role="${focus}"]`)?.focus();
      const ready = this.sources.filter((s) => s.state === "found" && !s.error && s.found.format), busy = this.sources.some((s) => ["reading", "uploading"].includes(s.state));
      this.$(".dt-finish").hidden = !this.sources.length;
      this.$("#data-bring-start").disabled = busy || ready.length !== this.sources.length;
      const rows = ready.reduce((n, s) => n + (total(s.found.rows) || 0), 0);
      this.$("[data-sum]").textContent = busy ? t("data.bring.busy") : ready.length === this.sources.length ? t("data.bring.sum", { n: num(rows), about: ready.every((s) => s.found.rows_exact) ? "" : t("data.bring.about") }) : t("data.bring.mend");
    }

    card(s, place) {
      const head = (tag, facts = "") => `<header>${icons.file}<b title="${esc(s.ref)}">${esc(s.label)}</b>${tag}<span class="st-muted">${facts}</span><button type="button" class="st-icon st-push" data-drop="${place}" aria-label="${esc(t("data.bring.remove", { name: s.label }))}">${icons.cross}</button></header>`;
      const open = (body, kind = "") => `<article class="st-card dt-source ${kind}" data-place="${place}">${body}</article>`;
      if (s.state === "uploading") return open(`${head("")}<div class="st-bar"><i style="width:${Math.round(s.share * 100)}%"></i></div><p class="st-muted">${esc(t("data.bring.uploading", { percent: Math.round(s.share * 100) }))}</p>`);
      if (s.state === "reading" && !s.found) return open(`${head("")}<p class="st-muted" role="status">${esc(t("data.reading"))}</p>`);
      if (s.state === "bad") return open(`${head("")}<p class="st-finding st-level-error"><b>${esc(s.error.message)}</b>${s.error.hint ? `<span>${esc(s.error.hint)}</span>` : ""}</p>`, "dt-is-bad");
      const f = s.found, tag = f.format ? `<span class="st-tag dt-format">${esc(f.title)}</span>` : `<span class="st-tag dt-unknown">${esc(t("data.bring.unknown"))}</span>`;
      const facts = [`${f.rows_exact ? "" : "≈ "}${t("library.rows", { n: num(total(f.rows)) })}`, f.file?.size ? studio.bytes(f.file.size) : ""].filter(Boolean).map(esc).join(" · ");
      const findings = f.findings || [], bad = s.error ? `<p class="st-finding st-level-error" role="alert"><b>${esc(s.error.message)}</b><span>${esc(s.error.hint || "")}</span></p>` : "";
      return open(`${head(tag, facts)}${bad}
        ${f.evidence?.length ? `<ul class="dt-evidence">${f.evidence.map((e) => `<li>${esc(e)}</li>`).join("")}</ul>` : ""}
        ${findings.length ? `<ul class="st-findings">${findings.slice(0, 4).map((x) => `<li class="st-finding st-level-${esc(x.severity)}"><b>${esc(x.message)}</b>${x.hint ? `<span>${esc(x.hint)}</span>` : ""}</li>`).join("")}</ul>` : ""}
        <details class="dt-columns" ${!f.format || s.error || s.wide ? "open" : ""}><summary>${esc(t("data.bring.columns"))}</summary>${this.roles(f)}</details>
        ${f.raw?.length ? `<details class="dt-raw"><summary>${esc(t("data.preview"))}</summary><pre class="st-code">${esc(f.raw.slice(0, 3).map((r) => JSON.stringify(r, null, 1)).join("\n"))}</pre></details>` : ""}`, f.format && !s.error ? "" : "dt-is-bad");
    }

    roles(f) {
      const spec = this.step?.fields.find((x) => x.name === "format"), chosen = { ...f.roles, ...this.columns };
      const roles = [...new Set([...(f.offer || []), ...Object.keys(chosen)])];
      const option = (value, label, now) => `<option value="${esc(value)}" ${value === now ? "selected" : ""}>${esc(label)}</option>`;
      const several = this.sources.length > 1 ? `<p class="st-muted">${esc(t("data.bring.columns.all"))}</p>` : "";
      return `<div class="st-roles"><label class="st-role">${esc(t("data.format"))}<select data-role="(format)">${(spec?.choices || [["auto", "auto"]]).map(([v, l]) => option(v, l, this.format)).join("")}</select></label>
        ${f.columns.length && !(f.columns.length === 1 && f.format === "text") ? roles.map((role) => `<label class="st-role">${esc(t(`data.role.${role}`) === `data.role.${role}` ? role : t(`data.role.${role}`))}<select data-role="${esc(role)}">${option("", t("data.none"), chosen[role] || "")}${f.columns.map((c) => option(c, c, chosen[role])).join("")}</select></label>`).join("") : ""}</div>${several}
        ${Object.keys(this.columns).length || this.format !== "auto" ? `<button type="button" class="st-link dt-auto" data-auto>${esc(t("data.bring.auto"))}</button>` : ""}`;
    }

    change(event) {
      const role = event.target.dataset.role, source = this.sources[event.target.closest("[data-place]")?.dataset.place];
      if (!role || !source) return;
      if (role === "(format)") { this.format = event.target.value; this.columns = {}; }
      else {
        const next = { ...source.found.roles, ...this.columns, [role]: event.target.value };
        this.columns = Object.fromEntries(Object.entries(next).filter(([, column]) => column));
      }
      this.again(source);
    }

    again(source) {
      for (const other of this.sources) if (other.found) { other.wide ||= other === source; this.look(other); }
    }

    click(event) {
      if (event.target.closest("[data-auto]")) { this.columns = {}; this.format = "auto"; return this.again(this.sources[0]); }
      const drop = event.target.closest("[data-drop]")?.dataset.drop;
      if (drop === undefined) return;
      this.sources.splice(Number(drop), 1);
      if (!this.sources.length) Object.assign(this, { columns: {}, format: "auto" });
      this.draw();
    }

    async start() {
      const values = { kind: "data", method: "import", ...this.form.values(), sources: this.sources.map((s) => s.ref) }, problems = this.$(".dt-problems");
      if (this.format !== "auto") values.format = this.format;
      if (Object.keys(this.columns).length) values.columns = this.columns;
      problems.innerHTML = "";
      this.$("#data-bring-start").disabled = true;
      try {
        await this.frame.submit(values);
        Object.assign(this, { sources: [], columns: {}, format: "auto", form: null });
        this.$(".dt-form").replaceWith(Object.assign(document.createElement("div"), { className: "dt-form" }));
        this.refresh();
      } catch (error) {
        const rest = this.form.showErrors(error.fields || { [error.field || "recipe"]: `${error.message} ${error.hint || ""}`.trim() }, true);
        problems.innerHTML = rest.map((message) => `<p class="st-finding st-level-error">${esc(message)}</p>`).join("");
      }
      this.draw();
    }
  }

  studio.DataBring = Bring;
})();
