/* A number of a merge: flat, or a curve over the layers, for all tensors or for some. What is stored is mergekit's own form. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const FILTERS = { self_attn: "--st-c4", mlp: "--st-c1" }, FURTHER = ["--st-c3", "--st-c2", "--st-c5"];
  const HEIGHT = 168, PAD = { left: 34, right: 12, top: 10, bottom: 24 };
  const SHAPES = { flat: () => 0.5, rise: (x) => x, fall: (x) => 1 - x, hill: (x) => Math.sin(Math.PI * x), valley: (x) => 1 - Math.sin(Math.PI * x) };
  let made = 0;

  const number = (v) => { const n = typeof v === "string" && v.trim() === "" ? NaN : Number(v); return Number.isFinite(n) ? n : v; };
  const plain = (v) => String(+Number(v).toPrecision(4));

  /** mergekit's setting as rows {filter, value}, the one for everything (else) last; null where there is none. */
  function read(setting) {
    if (setting === undefined || setting === null) return null;
    const one = (v) => (Array.isArray(v) ? v.map(number) : number(v));
    const parts = Array.isArray(setting) && setting.some((p) => p && typeof p === "object") ? setting : [setting];
    const rows = parts.map((p) => (p && typeof p === "object" && !Array.isArray(p) ? { filter: p.filter && p.filter !== "*" ? String(p.filter) : null, value: one(p.value) } : { filter: null, value: one(p) }));
    const rest = rows.findIndex((row) => row.filter === null);
    return rest < 0 ? rows : rows.slice(0, rest + 1); // mergekit takes the first that fits: nothing behind "everything" counts
  }

  /** Rows as mergekit reads them; a curve whose points are all alike is a number. */
  function write(rows) {
    const flat = (v) => (Array.isArray(v) && v.every((n) => n === v[0]) ? v[0] : v);
    if (rows.length === 1 && rows[0].filter === null) return flat(rows[0].value);
    return rows.map(({ filter, value }) => (filter === null ? { value: flat(value) } : { filter, value: flat(value) }));
  }

  /** A list of numbers drawn out or pressed together to n points of the same line. */
  function resample(list, n) {
    const from = Array.isArray(list) ? list : [list];
    return Array.from({ length: n }, (_, i) => {
      const at = n > 1 ? (i / (n - 1)) * (from.length - 1) : 0, low = Math.floor(at), high = Math.min(from.length - 1, low + 1);
      return +(from[low] + (from[high] - from[low]) * (at - low)).toFixed(4);
    });
  }

  const colour = (rows, i) => (rows[i].filter === null ? "--st-accent" : FILTERS[rows[i].filter] || FURTHER[rows.slice(0, i).filter((r) => r.filter && !FILTERS[r.filter]).length % FURTHER.length]);
  const title = (filter, alone) => (filter === null ? t(alone ? "mg.filter.all" : "mg.filter.rest") : FILTERS[filter] ? t(`mg.filter.${filter}`) : t("mg.filter.own", { name: filter }));

  /* The drawing: one line a row, the chosen one with points that are dragged, swept over or moved with the arrow keys. */
  class Curve {
    constructor(place, owner) {
      Object.assign(this, { place, owner });
      place.innerHTML = `<svg class="mg-curve" height="${HEIGHT}" role="group" aria-label="${esc(t("mg.curve.label", { name: owner.spec.title || owner.spec.name }))}"></svg>`;
      this.svg = place.firstElementChild;
      new ResizeObserver(() => this.svg.clientWidth !== this.width && this.draw()).observe(this.svg);
      this.svg.addEventListener("pointerdown", (event) => this.down(event));
      this.svg.addEventListener("keydown", (event) => this.key(event));
    }

    get points() { return this.owner.rows[this.owner.at].value; }
    range() {
      const all = this.owner.rows.flatMap((row) => row.value).filter(Number.isFinite), [low, high] = this.owner.range;
      return [Math.min(low, ...all), Math.max(high, ...all)];
    }

    x(i, n) { return PAD.left + (n > 1 ? i / (n - 1) : 0.5) * (this.width - PAD.left - PAD.right); }
    y(v) { const [low, high] = this.range(); return HEIGHT - PAD.bottom - ((v - low) / (high - low || 1)) * (HEIGHT - PAD.top - PAD.bottom); }

    draw() {
      const { rows, at } = this.owner, [low, high] = this.range(), layers = this.owner.layers();
      this.width = this.svg.clientWidth || 320;
      const grid = [0, 0.25, 0.5, 0.75, 1].map((share) => { const v = low + share * (high - low); return `<line x1="${PAD.left}" x2="${this.width - PAD.right}" y1="${this.y(v)}" y2="${this.y(v)}"/><text x="${PAD.left - 6}" y="${this.y(v) + 3.5}" text-anchor="end">${share * 4 % 2 ? "" : plain(v)}</text>`; });
      const step = layers ? Math.max(1, Math.ceil(layers / 12)) : 1;
      const ticks = layers ? Array.from({ length: layers }, (_, i) => i).filter((i) => i % step === 0 || i === layers - 1).filter((i) => i === layers - 1 || layers - 1 - i >= step / 2)
        .map((i) => `<text x="${this.x(i, layers)}" y="${HEIGHT - 7}" text-anchor="middle">${i}</text><line class="mg-tick" x1="${this.x(i, layers)}" x2="${this.x(i, layers)}" y1="${HEIGHT - PAD.bottom}" y2="${HEIGHT - PAD.bottom + 4}"/>`)
        : [[PAD.left, "start", "mg.curve.first"], [this.width - PAD.right, "end", "mg.curve.last"]].map(([x, anchor, key]) => `<text x="${x}" y="${HEIGHT - 7}" text-anchor="${anchor}">${esc(t(key))}</text>`);
      const line = (row, i) => {
        const values = Array.isArray(row.value) ? row.value : [row.value, row.value];
        const path = values.map((v, j) => `${this.x(j, values.length)},${this.y(v)}`).join(" ");
        return `<polyline class="${i === at ? "mg-line-at" : "mg-line"}" style="stroke:var(${colour(rows, i)})" points="${path}"/>`;
      };
      const active = rows[at], values = active.value;
      const dot = (v, j) => `<circle cx="${this.x(j, values.length)}" cy="${this.y(v)}" r="6.5" tabindex="0" role="slider" data-j="${j}" style="fill:var(${colour(rows, at)})" aria-label="${esc(t("mg.curve.point", { n: j + 1, of: values.length, name: title(active.filter, rows.length === 1) }))}"
        aria-valuemin="${low}" aria-valuemax="${high}" aria-valuenow="${v}" aria-orientation="vertical"><title>${plain(v)}</title></circle>`;
      const order = rows.map((_, i) => i).sort((a, b) => (a === at) - (b === at));
      this.svg.innerHTML = `<g class="mg-grid">${grid.join("")}${ticks.join("")}</g>${order.map((i) => line(rows[i], i)).join("")}${values.map(dot).join("")}`;
    }

    /** Values snap to hundredths of the range. */
    value(event) {
      const box = this.svg.getBoundingClientRect(), [low, high] = this.held || this.range();
      const share = 1 - (event.clientY - box.top - PAD.top) / (HEIGHT - PAD.top - PAD.bottom), step = (high - low) / 100;
      return +(low + Math.round(Math.max(0, Math.min(1, share)) * 100) * step).toFixed(4);
    }

    nearest(event) {
      const box = this.svg.getBoundingClientRect(), n = this.points.length;
      return Math.max(0, Math.min(n - 1, Math.round(((event.clientX - box.left - PAD.left) / (this.width - PAD.left - PAD.right)) * (n - 1))));
    }

    down(event) {
      if (event.button) return;
      const own = event.target.dataset?.j, set = (e) => this.set(own === undefined ? this.nearest(e) : Number(own), this.value(e), false);
      event.preventDefault();
      this.held = this.range();
      this.svg.setPointerCapture(event.pointerId);
      this.svg.classList.add("mg-drags");
      set(event);
      const move = (e) => set(e), up = () => {
        this.held = null;
        this.svg.classList.remove("mg-drags");
        this.svg.removeEventListener("pointermove", move);
        this.owner.changed();
        if (own !== undefined) this.focus(Number(own));
      };
      this.svg.addEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) this.svg.addEventListener(name, up, { once: true });
    }

    focus(j) { this.svg.querySelector(`[data-j="${j}"]`)?.focus({ preventScroll: true }); }

    set(j, value, tell = true) {
      this.points[j] = value;
      this.draw();
      this.owner.follow();
      if (tell) this.owner.changed();
    }

    key(event) {
      const j = Number(event.target.dataset?.j);
      if (!Number.isInteger(j)) return;
      const [low, high] = this.range(), step = (high - low) / 100;
      const next = { ArrowRight: 1, ArrowLeft: -1 }[event.key], by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      const to = { Home: low, End: high }[event.key] ?? (by && Math.max(low, Math.min(high, this.points[j] + by * step)));
      if (next) this.focus(j + next);
      else if (to !== undefined) { this.set(j, +to.toFixed(4)); this.focus(j); }
      else return;
      event.preventDefault();
    }
  }

  /* The control of one parameter. `spec` is that of merge_methods, `setting` what the configuration holds. */
  class Value {
    constructor(place, spec, setting, { onchange, layers = () => 0, path, from }) {
      Object.assign(this, { place, spec, onchange, layers, path, at: 0, id: `mg-v${++made}` });
      this.begin = from ?? spec.default;
      this.rows = read(setting);
      this.own = this.rows !== null;
      this.rows ??= [{ filter: null, value: this.begin ?? null }];
      this.range = [spec.low ?? 0, spec.high ?? 1];
      const kind = String(spec.type);
      this.kind = /bool/.test(kind) ? "bool" : /str/.test(kind) ? "str" : "number";
      place.className = `mg-value mg-is-${this.kind}`;
      place.dataset.at = path;
      this.build();
    }

    /** A slider only where its hundredths mean something: not for 0.00001. */
    get slides() {
      const { low, high, default: by } = this.spec;
      return this.kind === "number" && low != null && high != null && high - low <= 10 && !(by > 0 && by < (high - low) / 200) && !/int/.test(this.spec.type);
    }
    get curved() { return this.rows.length > 1 || Array.isArray(this.rows[0].value); }

    build() {
      const { spec, id } = this, name = `<label for="${id}" title="${esc([spec.help, spec.name].filter(Boolean).join(" · "))}">${esc(spec.title || spec.name)}${spec.required && !this.own ? ` <small>${esc(t("mg.required"))}</small>` : ""}</label>`;
      if (this.kind === "bool") {
        this.place.innerHTML = `<span class="st-check"><input type="checkbox" id="${id}" ${this.rows[0].value ? "checked" : ""}>${name}</span>`;
        this.place.querySelector("input").onchange = (event) => { this.rows = [{ filter: null, value: event.target.checked }]; this.changed(); };
        return;
      }
      const curve = this.kind === "number" && (this.slides || this.curved);
      this.place.innerHTML = `<div class="mg-value-line">${name}
        ${this.slides ? `<input type="range" min="${this.range[0]}" max="${this.range[1]}" step="${(this.range[1] - this.range[0]) / 100}" tabindex="-1" aria-hidden="true">` : "<i></i>"}
        <input type="text" id="${id}" ${this.kind === "number" ? 'inputmode="decimal"' : ""} autocomplete="off" spellcheck="false" aria-describedby="${id}-help">
        ${curve ? `<button type="button" class="st-btn st-small mg-curve-button" aria-expanded="false">${ICON}<span>${esc(t("mg.curve"))}</span></button>` : ""}</div>
        <div class="st-visually-hidden" id="${id}-help">${esc(spec.help || "")}</div><div class="mg-curves" hidden></div>`;
      [this.slider, this.text] = [this.place.querySelector("[type=range]"), this.place.querySelector("[type=text]")];
      this.curves = this.place.querySelector(".mg-curves");
      this.button = this.place.querySelector("button");
      if (this.slider) this.slider.oninput = () => { this.text.value = plain(this.slider.value); this.typed(); };
      this.text.oninput = () => this.typed();
      this.text.onchange = () => this.follow();
      if (this.button) this.button.onclick = () => (this.curves.hidden ? this.open() : this.close());
      this.follow();
      if (this.curved && this.place.dataset.wide === "yes") this.open();
    }

    /** The line above says what the curves are. */
    follow() {
      const first = this.rows.at(-1).value, line = this.place.querySelector(".mg-value-line");
      line.classList.toggle("mg-has-curve", this.curved);
      if (document.activeElement !== this.text) this.text.value = this.curved ? "" : first === null || first === undefined ? "" : typeof first === "number" ? (Math.abs(first) < 1e-3 && first ? first.toExponential().replace("e-", "e-") : String(first)) : String(first);
      this.text.placeholder = this.curved ? t("mg.curve.is") : this.begin === null || this.begin === undefined ? "" : String(this.begin);
      this.text.disabled = this.curved;
      if (this.slider) { this.slider.value = typeof first === "number" ? first : Math.min(1, this.range[1]); // unset is as good as 1
        this.slider.hidden = this.curved; }
      const numbers = this.place.querySelector(".mg-numbers");
      if (numbers && document.activeElement !== numbers) numbers.value = this.rows[this.at].value.join(", ");
      this.place.querySelector(".mg-small")?.remove();
      if (this.curved && this.slides) this.text.insertAdjacentHTML("beforebegin", `<span class="mg-small" aria-hidden="true">${this.small()}</span>`);
    }

    /** The curves in miniature, for the closed line. */
    small() {
      const all = this.rows.flatMap((row) => row.value), low = Math.min(this.range[0], ...all), high = Math.max(this.range[1], ...all);
      return `<svg width="120" height="22" viewBox="0 0 120 22" preserveAspectRatio="none">${this.rows.map((row, i) => { const v = resample(row.value, 25); return `<polyline style="stroke:var(${colour(this.rows, i)})" points="${v.map((n, j) => `${1 + j * 4.9},${20 - ((n - low) / (high - low || 1)) * 18}`).join(" ")}"/>`; }).join("")}</svg>`;
    }

    typed() {
      const text = this.text.value.trim();
      if (this.slider) this.slider.value = text !== "" && Number.isFinite(Number(text)) ? Number(text) : Math.min(1, this.range[1]);
      this.rows = [{ filter: null, value: this.kind === "number" ? number(text) : text }];
      this.changed(text === "");
    }

    /** Tell the editor; an emptied field means what would hold without it. */
    changed(empty = false) {
      this.own = !empty;
      this.onchange(empty ? undefined : write(this.rows));
    }

    open() {
      const flat = (v) => (Number.isFinite(v) ? v : Number.isFinite(this.begin) ? this.begin : (this.range[0] + this.range[1]) / 2);
      const points = this.rows.reduce((n, row) => Math.max(n, Array.isArray(row.value) ? row.value.length : 0), 0) || 5;
      this.rows = this.rows.map((row) => ({ ...row, value: Array.isArray(row.value) && row.value.length > 1 ? row.value.map(flat) : resample(flat([row.value].flat()[0]), points) }));
      if (this.rows.at(-1).filter !== null) this.rows.push({ filter: null, value: resample(flat(null), points) });
      this.at = this.rows.length - 1;
      this.place.dataset.wide = "yes";
      this.curves.hidden = false;
      this.button.setAttribute("aria-expanded", "true");
      this.curves.innerHTML = `<div class="mg-lines" role="group" aria-label="${esc(t("mg.lines"))}"></div><div class="mg-drawing"></div>
        <div class="mg-tools"><label>${esc(t("mg.points"))} <input type="number" min="2" max="32" class="mg-count"></label>
          <span class="mg-shapes" role="group" aria-label="${esc(t("mg.shapes"))}">${Object.keys(SHAPES).map((name) => `<button type="button" class="st-icon" data-shape="${name}" title="${esc(t(`mg.shape.${name}`))}" aria-label="${esc(t(`mg.shape.${name}`))}">${shape(SHAPES[name])}</button>`).join("")}</span>
          <label class="mg-exact">${esc(t("mg.numbers"))} <input type="text" class="mg-numbers" spellcheck="false" autocomplete="off"></label>
          <button type="button" class="st-btn st-small mg-flat">${esc(t("mg.flat"))}</button></div>`;
      this.drawing = new Curve(this.curves.querySelector(".mg-drawing"), this);
      this.curves.onclick = (event) => this.click(event);
      const count = this.curves.querySelector(".mg-count"), numbers = this.curves.querySelector(".mg-numbers");
      count.onchange = () => { const n = Math.max(2, Math.min(32, Number(count.value) || 2)); this.put(resample(this.rows[this.at].value, n)); };
      numbers.onchange = () => {
        const list = numbers.value.split(/[,;\s]+/).filter(Boolean).map(Number);
        numbers.setAttribute("aria-invalid", String(list.length < 2 || !list.every(Number.isFinite)));
        if (list.length > 1 && list.every(Number.isFinite)) this.put(list);
      };
      this.lines();
      this.drawing.draw();
      this.follow();
    }

    close() {
      this.place.dataset.wide = "no";
      this.rows = read(write(this.rows));
      this.build();
      this.button?.focus();
    }

    /** The chips that choose which line is moved. */
    lines() {
      const alone = this.rows.length === 1, has = (filter) => this.rows.some((row) => row.filter === filter);
      this.curves.querySelector(".mg-lines").innerHTML = this.rows.map((row, i) => `<span class="mg-chip${i === this.at ? " mg-chip-at" : ""}"><button type="button" data-line="${i}" aria-pressed="${i === this.at}"><i style="background:var(${colour(this.rows, i)})"></i>${esc(title(row.filter, alone))}</button>
        ${row.filter === null ? "" : `<button type="button" data-drop="${i}" aria-label="${esc(t("mg.filter.drop", { name: title(row.filter) }))}">×</button>`}</span>`).join("")
        + Object.keys(FILTERS).filter((filter) => !has(filter)).map((filter) => `<button type="button" class="mg-more" data-filter="${filter}">${esc(t("mg.filter.add", { name: title(filter) }))}</button>`).join("")
        + `<button type="button" class="mg-more" data-filter="">${esc(t("mg.filter.other"))}</button>`;
      this.curves.querySelector(".mg-count").value = this.rows[this.at].value.length;
      this.curves.querySelector(".mg-numbers").value = this.rows[this.at].value.join(", ");
    }

    async click(event) {
      const { line, drop, filter, shape: name } = event.target.closest("button")?.dataset || {};
      if (line !== undefined) this.at = Number(line);
      else if (drop !== undefined) { this.rows.splice(Number(drop), 1); this.at = this.rows.length - 1; this.changed(); }
      else if (filter !== undefined) {
        const wanted = filter || (await studio.ask(t("mg.filter.title"), `<p class="st-muted">${esc(t("mg.filter.help"))}</p><label class="st-line">${esc(t("mg.filter.name"))}<input name="filter" required maxlength="80" placeholder="down_proj" autofocus></label>`, t("mg.filter.go")))?.filter.trim();
        if (!wanted || this.rows.some((row) => row.filter === wanted)) return;
        this.rows.splice(-1, 0, { filter: wanted, value: [...this.rows.at(-1).value] });
        this.at = this.rows.length - 2;
        this.changed();
      } else if (name) {
        const [low, high] = [Math.max(0, this.range[0]), Math.min(1, this.range[1])], n = this.rows[this.at].value.length;
        return this.put(Array.from({ length: n }, (_, i) => +(low + SHAPES[name](n > 1 ? i / (n - 1) : 0) * (high - low)).toFixed(3)));
      } else if (event.target.closest(".mg-flat")) {
        const { value } = this.rows.at(-1);
        this.rows = [{ filter: null, value: value.reduce((sum, v) => sum + v, 0) / value.length }];
        this.rows[0].value = +this.rows[0].value.toFixed(2);
        this.changed();
        return this.close();
      } else return;
      this.lines();
      this.drawing.draw();
      this.follow();
    }

    put(list) {
      this.rows[this.at].value = list;
      this.lines();
      this.drawing.draw();
      this.follow();
      this.changed();
    }

    /** The number of layers became known. */
    relayer() { if (this.drawing && !this.curves.hidden) this.drawing.draw(); }
  }

  const shape = (fn) => `<svg width="20" height="14" viewBox="0 0 20 14" aria-hidden="true"><polyline points="${Array.from({ length: 11 }, (_, i) => `${1 + i * 1.8},${(12 - fn(i / 10) * 10).toFixed(1)}`).join(" ")}" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round" stroke-linecap="round"/></svg>`;
  const ICON = '<svg width="15" height="12" viewBox="0 0 16 12" fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round" aria-hidden="true"><path d="M1 10C5 10 4 2 8 2s3 8 7 8"/></svg>';

  studio.mergeValues = { read, write, resample, Value };
})();
