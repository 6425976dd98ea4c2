/* "Try variations": a dialog that makes a sweep of the form as it stands. What is typed in it survives a reload. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const METHODS = ["grid", "random", "bayes"];
  const FIRST = { metric: "auto", pruner: "none", trials: 12, parallel: 1, only_best: false };

  const key = (tab) => `studio-sweep-${tab}`;
  const kept = (tab) => { try { return JSON.parse(localStorage.getItem(key(tab))) || null; } catch { return null; } };
  const isNumber = (spec) => spec.type === "int" || spec.type === "float";
  const choices = (spec) => (spec.type === "bool" ? [[true, t("sweep.on")], [false, t("sweep.off")]] : spec.choices);
  const short = (v) => (typeof v === "number" && v !== 0 && Math.abs(v) < 1e-2 ? v.toExponential(2).replace(/\.?0*e/, "e").replace("e+", "e") : String(v));

  /** A number within the field's own bounds. */
  function bounded(spec, v) {
    const b = spec.bounds, tiny = spec.type === "int" ? 1 : 1e-9;
    v = Math.min(v, b.le ?? (b.lt !== undefined ? b.lt - tiny : v));
    v = Math.max(v, b.ge ?? (b.gt !== undefined ? b.gt + tiny : v));
    return spec.type === "int" ? Math.round(v) : Number(v.toPrecision(3));
  }

  /** A first proposal around what the form says now. */
  function proposal(spec, now, ranged) {
    if (!isNumber(spec)) {
      const all = choices(spec).map(([v]) => v);
      return { field: spec.name, values: spec.type === "bool" ? all : all.length ? [...new Set([now, ...all])].slice(0, 2) : [now] };
    }
    const log = spec.widget === "log", base = typeof now === "number" && now > 0 ? now : Math.max(Number(spec.default) || 0, spec.type === "int" ? 4 : 0.05);
    if (ranged) return { field: spec.name, low: bounded(spec, log ? base / 10 : base / 2), high: bounded(spec, log ? base * 10 : base * 2), log };
    return { field: spec.name, values: [...new Set((log ? [base / 3, base, base * 3] : [base / 2, base, base * 2]).map((v) => bounded(spec, v)))] };
  }

  class Dialog {
    constructor(tab) {
      this.tab = tab;
      this.form = studio.forms[tab];
      this.values = this.form.values;
      this.state = { method: "grid", axes: [], settings: { ...FIRST }, ...(kept(tab) || {}) };
    }

    async open() {
      const found = await studio.call("sweep_fields", { kind: this.values.kind, method: this.values.method });
      this.specs = Object.fromEntries(found.fields.map((spec) => [spec.name, spec]));
      this.settings = Object.fromEntries(found.settings.map((spec) => [spec.name, spec]));
      this.state.axes = this.state.axes.filter((axis) => this.specs[axis.field]);
      if (!this.state.axes.length) this.state.axes = ["learning_rate", "r"].filter((name) => this.specs[name]).map((name) => this.propose(name));
      const dialog = (this.dialog = document.createElement("dialog"));
      dialog.className = "st-dialog sw-dialog";
      dialog.setAttribute("aria-label", t("sweep.title"));
      dialog.innerHTML = `<form method="dialog"><h2>${esc(t("sweep.title"))}</h2><div class="st-dialog-body">
        <p class="st-muted">${esc(t("sweep.lead"))}</p>
        <div class="st-views sw-methods" role="tablist" aria-label="${esc(t("sweep.method"))}">${METHODS.map((name) =>
          `<button type="button" role="tab" data-method="${name}">${esc(t(`sweep.method.${name}`))}</button>`).join("")}</div>
        <p class="st-muted sw-about"></p><h3>${esc(t("sweep.vary"))}</h3><div class="sw-axes"></div>
        <button type="button" class="st-btn st-small" data-add>${esc(t("sweep.add"))}</button>
        <details class="sw-more"><summary>${esc(t("sweep.more"))}</summary><div class="sw-settings"></div></details></div>
        <footer><div class="sw-total" role="status"></div><button type="button" class="st-btn" data-cancel>${esc(t("action.cancel"))}</button>
        <button type="submit" class="st-btn st-primary" data-start disabled>${esc(t("sweep.start"))}</button></footer></form>`;
      this.$ = (selector) => dialog.querySelector(selector);
      this.$(".sw-methods").onclick = (event) => event.target.dataset.method && this.choose(event.target.dataset.method);
      this.$("[data-add]").onclick = () => this.add();
      this.$("[data-cancel]").onclick = () => dialog.close();
      this.$("form").onsubmit = (event) => { event.preventDefault(); this.start(); };
      dialog.onclose = () => dialog.remove();
      document.body.append(dialog);
      dialog.showModal();
      this.draw();
    }

    get ranged() { return this.state.method !== "grid"; }

    propose(name) {
      const axis = proposal(this.specs[name], this.values[name], this.ranged);
      return { field: axis.field, text: axis.values?.map(short).join(", "), picked: axis.values, low: short(axis.low ?? ""), high: short(axis.high ?? ""), log: Boolean(axis.log), ranged: this.ranged && isNumber(this.specs[name]) };
    }

    choose(method) {
      const before = this.ranged;
      this.state.method = method;
      if (before !== this.ranged) this.state.axes = this.state.axes.map((axis) => this.propose(axis.field));
      this.draw();
    }

    add() {
      const taken = this.state.axes.map((axis) => axis.field);
      const name = ["learning_rate", "num_train_epochs", "r", "per_device_train_batch_size", ...Object.keys(this.specs)].find((n) => this.specs[n] && !taken.includes(n));
      if (name) this.state.axes.push(this.propose(name));
      this.draw();
    }

    draw() {
      for (const button of this.dialog.querySelectorAll("[data-method]")) button.setAttribute("aria-selected", String(button.dataset.method === this.state.method));
      this.$(".sw-about").textContent = t(`sweep.about.${this.state.method}`);
      this.$(".sw-axes").innerHTML = this.state.axes.map((axis, i) => this.axis(axis, i)).join("");
      this.drawSettings();
      for (const [i, row] of [...this.dialog.querySelectorAll(".sw-axis")].entries()) this.listen(row, this.state.axes[i], i);
      this.changed();
    }

    axis(axis, i) {
      const spec = this.specs[axis.field], taken = this.state.axes.map((other) => other.field), groups = {};
      for (const one of Object.values(this.specs)) if (one.name === axis.field || !taken.includes(one.name)) (groups[one.group] ??= []).push(one);
      const field = (name, label, v) => `<label class="sw-value"><span>${esc(label)}</span><input data-k="${name}" value="${esc(v)}" inputmode="decimal" autocomplete="off"></label>`;
      const options = choices(spec);
      const value = isNumber(spec) && axis.ranged
        ? `${field("low", t("sweep.low"), axis.low)}${field("high", t("sweep.high"), axis.high)}<label class="st-check sw-log"><input type="checkbox" data-k="log" ${axis.log ? "checked" : ""}> ${esc(t("sweep.log"))}</label>`
        : !isNumber(spec) && options.length && spec.type !== "str"
          ? `<span class="sw-picks">${options.map(([v, text], n) => `<label class="st-check"><input type="checkbox" data-pick="${n}" ${(axis.picked || []).includes(v) ? "checked" : ""}> ${esc(text)}</label>`).join("")}</span>`
          : field("text", t("sweep.values"), axis.text);
      return `<div class="sw-axis"><label class="sw-value sw-field"><span>${esc(t("sweep.field"))}</span><select data-k="field" aria-label="${esc(t("sweep.field"))}">${Object.entries(groups).map(([group, specs]) =>
        `<optgroup label="${esc(t(`group.${group}`))}">${specs.map((one) => `<option value="${esc(one.name)}" ${one.name === axis.field ? "selected" : ""}>${esc(one.title)}</option>`).join("")}</optgroup>`).join("")}</select></label>
        ${value}<button type="button" class="st-icon" data-drop="${i}" aria-label="${esc(t("sweep.drop", { name: spec.title }))}">×</button></div>`;
    }

    listen(row, axis, i) {
      row.querySelector("[data-drop]").onclick = () => { this.state.axes.splice(i, 1); this.draw(); };
      row.querySelector("select").onchange = (event) => { this.state.axes[i] = this.propose(event.target.value); this.draw(); };
      for (const input of row.querySelectorAll("input[data-k]"))
        input.oninput = () => { axis[input.dataset.k] = input.type === "checkbox" ? input.checked : input.value; this.changed(); };
      for (const input of row.querySelectorAll("[data-pick]"))
        input.onchange = () => {
          const all = choices(this.specs[axis.field]);
          axis.picked = [...row.querySelectorAll("[data-pick]:checked")].map((box) => all[Number(box.dataset.pick)][0]);
          this.changed();
        };
    }

    drawSettings() {
      const names = ["trials", "parallel", "metric", "pruner", "only_best"].filter((name) => name !== "trials" || this.ranged);
      this.$(".sw-settings").innerHTML = names.map((name) => {
        const spec = this.settings[name], now = this.state.settings[name];
        const control = spec.type === "bool" ? `<input type="checkbox" data-set="${name}" ${now ? "checked" : ""}>`
          : spec.choices.length ? `<select data-set="${name}">${spec.choices.map(([v, text]) => `<option value="${esc(v)}" ${v === now ? "selected" : ""}>${esc(text)}</option>`).join("")}</select>`
            : `<input data-set="${name}" value="${esc(now)}" inputmode="numeric">`;
        return `<label class="sw-setting${spec.type === "bool" ? " sw-switch" : ""}"><b>${esc(spec.title)}</b>${control}<small>${esc(spec.help)}</small></label>`;
      }).join("");
      for (const input of this.dialog.querySelectorAll("[data-set]"))
        input.oninput = () => {
          const name = input.dataset.set;
          this.state.settings[name] = input.type === "checkbox" ? input.checked : this.settings[name].type === "int" ? this.number(input.value) : input.value;
          this.changed();
        };
    }

    /** Text that is no number stays text, for the recipe to refuse. */
    number(text) { return String(text).trim() !== "" && isFinite(Number(text)) ? Number(text) : String(text); }

    recipe() {
      const space = this.state.axes.map((axis) => {
        const spec = this.specs[axis.field];
        if (isNumber(spec) && axis.ranged) return { field: axis.field, low: this.number(axis.low), high: this.number(axis.high), ...(axis.log ? { log: true } : {}) };
        if (!isNumber(spec) && choices(spec).length && spec.type !== "str") return { field: axis.field, values: axis.picked || [] };
        const words = String(axis.text || "").split(/[,;]+/).map((word) => word.trim()).filter(Boolean);
        return { field: axis.field, values: isNumber(spec) ? words.map((word) => this.number(word)) : words };
      });
      const settings = { ...this.state.settings };
      if (!this.ranged) settings.trials = Math.max(1, Math.min(500, space.reduce((n, axis) => n * (axis.values?.length || 1), 1)));
      const { kind, method, schema_version, ...rest } = this.values;
      return { kind: "sweep", method: this.state.method, name: rest.name || "", recipe: { kind, method, ...rest }, space, ...settings };
    }

    changed() {
      try { localStorage.setItem(key(this.tab), JSON.stringify(this.state)); } catch { /* a full or forbidden storage keeps nothing */ }
      clearTimeout(this.wait);
      const mine = (this.asked = (this.asked || 0) + 1);
      this.$("[data-start]").disabled = true;
      this.wait = setTimeout(async () => {
        try {
          const found = await studio.call("validate", { values: this.recipe() });
          if (mine === this.asked) this.told(found);
        } catch (error) { if (mine === this.asked) this.total(error.message, true); }
      }, 250);
    }

    told(found) {
      const wrong = Object.entries(found.errors || {})[0], runs = this.runs();
      if (wrong) return this.total(["space", "recipe"].includes(wrong[0]) ? wrong[1] : `${this.settings[wrong[0]]?.title || wrong[0]}: ${wrong[1]}`, true);
      const { seconds, disk, notes } = found.estimate;
      this.total([seconds != null ? t("sweep.total", { n: runs, time: studio.duration(seconds) }) : t("sweep.total.unknown", { n: runs }),
        disk != null ? t("sweep.disk", { size: studio.bytes(disk) }) : "", (notes || [])[1]].filter(Boolean).join(" "));
      this.$("[data-start]").disabled = false;
      this.$("[data-start]").textContent = t("sweep.start.n", { n: runs });
    }

    /** Runs that the sweep will make: never more than there are combinations. */
    runs() {
      const { space, trials } = this.recipe();
      const all = space.every((axis) => axis.values) ? space.reduce((n, axis) => n * new Set(axis.values.map(String)).size, 1) : Infinity;
      return Math.min(trials, all);
    }

    total(text, bad = false) {
      const place = this.$(".sw-total");
      place.textContent = text;
      place.classList.toggle("st-is-bad", bad);
    }

    async start() {
      const button = this.$("[data-start]");
      button.disabled = true;
      try {
        const run = await studio.call("submit", { values: this.recipe() });
        this.dialog.close();
        window.dispatchEvent(new CustomEvent("studio:runs"));
        studio.lives[this.tab].show(run.id);
      } catch (error) { this.total([error.message, error.hint].filter(Boolean).join(" "), true); button.disabled = false; }
    }
  }

  studio.parts.sweep = ({ root, props }) => {
    root.innerHTML = `<button type="button" class="st-btn sw-open" id="${esc(props.tab)}-try">${esc(t("sweep.open"))}</button><small class="st-muted">${esc(t("sweep.open.hint"))}</small>`;
    root.querySelector("button").onclick = async () => {
      if (!studio.forms[props.tab]) return;
      try { await new Dialog(props.tab).open(); } catch (error) { studio.failed(error); }
    };
  };
})();
