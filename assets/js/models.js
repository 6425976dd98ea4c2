/* A list of models in their order, picked like anywhere else. What another field says of each, one a line, stands with its model. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, json = JSON.stringify;
  const TYPED = /^(hub:\S+|[~/.]\S*|run:\S+|library:\S+|step:\S+|starter\S*)$/i;
  const BESIDE = { experts: ["positive_prompts", "negative_prompts"], adapters: ["weights"] }; // a line of these for each model
  const NOTHING = { positive_prompts: "-", negative_prompts: "-", weights: "1" };
  const given = (props) => (Array.isArray(props.value) ? props.value.map(String) : []);

  class Models {
    constructor({ root, props, watch }) {
      Object.assign(this, { root, props, tab: root.dataset.tab, name: root.dataset.name, list: given(props), models: [], lines: {} });
      root.innerHTML = `<div class="ml-head"><div class="st-label" id="${this.tab}-${this.name}-label">${esc(studio.worded(root.dataset.title))}</div><div class="st-info">${esc(studio.worded(root.dataset.help))}</div></div><ol class="ml-list" aria-labelledby="${this.tab}-${this.name}-label"></ol><div class="ml-told" role="status"></div><button type="button" class="st-btn" data-add>${esc(t("mg.model.add"))}</button>`;
      watch("value", () => { if (json(given(props)) !== json(this.list)) { this.list = given(props); this.draw(); } });
      root.addEventListener("click", (event) => this.click(event));
      root.addEventListener("change", (event) => this.typed(event.target));
      window.addEventListener("studio:form", (event) => event.detail === this.tab && root.isConnected && this.follow());
      for (const name of ["studio:runs-ended", "studio:tab"]) window.addEventListener(name, () => root.isConnected && this.load());
      new studio.Picker(root.querySelector("[data-add]"), () => this.models, (ref) => this.set([...this.list, ref], this.list.length), { hint: "mg.pick.hint", typed: TYPED });
      this.load();
    }

    async load() {
      const { models } = await studio.call("library").catch(() => ({ models: [] })), only = this.name === "adapters";
      this.models = models.filter((m) => !m.meta?.reward && !m.meta?.format && (!only || m.kind === "adapter" || m.kind === "checkpoint"));
      this.draw();
    }

    /** Fields beside this one that are in sight now. */
    get beside() { return (BESIDE[this.name] || []).filter((name) => this.area(name)); }
    area(name) { return document.querySelector(`#${this.tab}-${name} textarea`); }

    /** The other fields changed, by a preset or as YAML. */
    follow() {
      const { values = {}, titles = {}, errors = {} } = studio.forms[this.tab] || {}, now = {};
      this.root.querySelector(".ml-told").innerHTML = this.list.length ? this.beside.filter((name) => errors[name]).map((name) => `<p class="st-error">${esc(errors[name])}</p>`).join("") : "";
      for (const name of this.beside) now[name] = (values[name] || []).map(String);
      if (json([now, this.beside]) === this.seen) return;
      this.seen = json([now, this.beside]);
      Object.assign(this, { lines: now, titles });
      if (!this.root.contains(document.activeElement) || document.activeElement.tagName !== "INPUT") this.draw();
    }

    draw(focus = null) {
      for (const area of (BESIDE[this.name] || []).map((name) => this.area(name))) if (area) area.tabIndex = -1;
      for (const name of BESIDE[this.name] || []) document.getElementById(`${this.tab}-${name}`)?.classList.add("ml-beside"); // it holds the value; what is shown and typed into stands here
      const label = (ref) => this.models.find((m) => m.ref === ref)?.label || ref, last = this.list.length - 1;
      const button = (act, i, svg, off) => `<button type="button" class="st-icon" data-act="${act}" data-i="${i}" ${off ? "disabled" : ""} aria-label="${esc(t(`mg.model.${act}`, { name: label(this.list[i]) }))}">${svg}</button>`;
      const line = (name, i) => { const text = this.lines[name]?.[i] ?? ""; return `<label><span>${esc(studio.known(`ml.${name}`) ? t(`ml.${name}`) : this.titles?.[name] || name)}</span><input data-line="${name}" data-i="${i}" value="${esc(text === "-" ? "" : text)}" placeholder="${esc(studio.known(`ml.${name}.example`) ? t(`ml.${name}.example`) : "")}" autocomplete="off"></label>`; };
      this.root.querySelector(".ml-list").innerHTML = this.list.map((ref, i) => `<li class="mg-model"><div class="mg-model-head"><b class="ml-n">${i + 1}</b><button type="button" class="mg-pick ml-pick" data-i="${i}" data-ref="${esc(ref)}"><i></i><b>${esc(label(ref))}</b><small>${esc(this.models.find((m) => m.ref === ref)?.detail || "")}</small></button>
        <span class="mg-acts">${button("up", i, studio.mergeIcons.up, i === 0)}${button("down", i, studio.mergeIcons.down, i === last)}${button("remove", i, studio.mergeIcons.cross)}</span></div>
        ${this.beside.length ? `<div class="ml-lines">${this.beside.map((name) => line(name, i)).join("")}</div>` : ""}</li>`).join("");
      for (const pick of this.root.querySelectorAll(".ml-pick")) new studio.Picker(pick, () => this.models, (ref) => this.set(this.list.map((one, i) => (i === Number(pick.dataset.i) ? ref : one)), Number(pick.dataset.i)), { hint: "mg.pick.hint", typed: TYPED });
      if (focus !== null) (this.root.querySelectorAll(".ml-pick")[focus] || this.root.querySelector("[data-add]")).focus();
    }

    set(list, focus = null) {
      this.props.value = this.list = list;
      this.draw(focus);
    }

    click(event) {
      const { act, i } = event.target.closest("[data-act]")?.dataset || {}, at = Number(i), list = [...this.list];
      if (!act) return;
      const to = at + (act === "up" ? -1 : 1), order = list.map((_, n) => n);
      if (act === "remove") order.splice(at, 1); else [order[at], order[to]] = [order[to], order[at]];
      for (const name of this.beside) if (this.lines[name]?.length) this.write(name, order.map((n) => this.lines[name][n] ?? NOTHING[name]));
      this.set(order.map((n) => list[n]), act === "remove" ? Math.min(at, order.length - 1) : to);
    }

    typed({ dataset: { line, i }, value }) {
      if (!line) return;
      const all = this.list.map((_, n) => this.lines[line]?.[n] ?? NOTHING[line]);
      all[Number(i)] = value.trim() || NOTHING[line];
      this.write(line, all);
    }

    /** Into gradio's own field, as if it had been typed there. */
    write(name, lines) {
      const area = this.area(name), empty = lines.every((text) => text === "-");
      this.lines[name] = empty ? [] : lines;
      area.value = empty ? "" : lines.join("\n");
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
  }
  studio.parts.models = (context) => new Models(context);
})();
