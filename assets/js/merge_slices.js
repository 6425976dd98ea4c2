/* Slices of layers: what the result is stacked from, as bars over the layers of each source, with edges that can be dragged. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  class Slices {
    /** `editor` holds the configuration, the facts of the models and their colours (merge.js). */
    constructor(place, editor) {
      Object.assign(this, { place, editor });
      place.addEventListener("pointerdown", (event) => this.down(event));
      place.addEventListener("keydown", (event) => this.key(event));
      place.addEventListener("change", (event) => this.typed(event));
      place.addEventListener("click", (event) => this.click(event));
      this.draw();
    }

    get list() { return this.editor.config.slices; }
    source(si, ki) { return this.list[si].sources[ki]; }
    name(si, ki) { return this.editor.label(this.source(si, ki).model) || t("mg.slice.nobody"); }

    /** Layers of a source's model: as its files say, or else as far as the slices reach. */
    layers(si, ki) {
      const { model, layer_range } = this.source(si, ki);
      return this.editor.facts(model)?.layers || Math.max(layer_range?.[1] || 1, ...this.list.flatMap((slice) => slice.sources.filter((s) => s.model === model).map((s) => s.layer_range?.[1] || 1)));
    }

    draw() {
      const { editor } = this, last = this.list.length - 1;
      const act = (name, si, icon, off = false) => `<button type="button" class="st-icon" data-slice="${name}" data-si="${si}" ${off ? "disabled" : ""} aria-label="${esc(t(`mg.slice.${name}`, { n: si + 1 }))}" title="${esc(t(`mg.slice.${name}`, { n: si + 1 }))}">${icon}</button>`;
      const source = (slice, si, ki) => `<div class="mg-source" data-at="slices.${si}.sources.${ki}"><div class="mg-source-head">${editor.pickButton(["slices", si, "sources", ki, "model"], t("mg.slice.model", { n: si + 1 }))}
        <span class="mg-range">${["from", "to"].map((end) => `<label>${esc(t(`mg.slice.${end}`))} <input type="number" min="0" data-end="${end}" data-si="${si}" data-ki="${ki}" aria-label="${esc(t(`mg.slice.${end}.of`, { n: si + 1, name: this.name(si, ki) }))}"></label>`).join("")}</span>
        ${slice.sources.length > 1 ? `<button type="button" class="st-icon" data-slice="without" data-si="${si}" data-ki="${ki}" aria-label="${esc(t("mg.slice.without", { n: si + 1 }))}">${studio.mergeIcons.cross}</button>` : ""}</div>
        <div class="mg-track" data-si="${si}" data-ki="${ki}"><div class="mg-bar"><i class="mg-edge" role="slider" tabindex="0" data-end="from"></i><span></span><i class="mg-edge" role="slider" tabindex="0" data-end="to"></i></div></div>
        <div class="mg-params">${editor.ownValues(["slices", si, "sources", ki], slice.sources[ki].model, slice.base_model)}</div></div>`;
      this.place.innerHTML = `<div class="mg-result" role="img"></div><ol class="mg-slices">${this.list.map((slice, si) => `<li class="mg-slice" data-at="slices.${si}"><header><b>${esc(t("mg.slice", { n: si + 1 }))}</b><small></small><span class="st-push"></span>
        ${act("up", si, studio.mergeIcons.up, si === 0)}${act("down", si, studio.mergeIcons.down, si === last)}${act("copy", si, studio.mergeIcons.copy)}${act("remove", si, studio.mergeIcons.cross, last === 0)}</header>
        ${(slice.sources || []).map((_, ki) => source(slice, si, ki)).join("")}
        ${editor.spec.max_models === 1 ? "" : `<button type="button" class="st-link mg-add-source" data-slice="with" data-si="${si}">${esc(t("mg.slice.with"))}</button>`}
        ${editor.sliceValues(si)}</li>`).join("")}</ol><button type="button" class="st-btn" data-slice="add" data-si="${last}">${esc(t("mg.slice.add"))}</button>`;
      this.paint();
    }

    /** Bars, numbers and the strip of the result as the configuration has them now. */
    paint() {
      let sum = 0;
      const strip = [];
      this.list.forEach((slice, si) => {
        const card = this.place.querySelectorAll(".mg-slice")[si], [from, to] = slice.sources?.[0]?.layer_range || [0, 0], length = Math.max(0, to - from);
        if (!card) return;
        card.querySelector("header small").textContent = length ? t("mg.slice.becomes", { from: sum, to: sum + length - 1 }) : "";
        strip.push({ length, text: `${from}–${to - 1}`, models: slice.sources.map((s) => s.model) });
        sum += length;
        slice.sources.forEach((s, ki) => this.bar(si, ki));
      });
      const result = this.place.querySelector(".mg-result");
      result.setAttribute("aria-label", t("mg.slice.result", { n: sum, what: strip.map((part) => `${part.models.map((m) => this.editor.label(m)).join(" + ")} ${part.text}`).join(", ") }));
      result.innerHTML = `<small>${esc(t("mg.slice.total", { n: sum }))}</small><div>${strip.filter((part) => part.length).map((part) => `<span style="flex:${part.length} ${part.length} 0" title="${esc(part.models.map((m) => this.editor.label(m)).join(" + "))}">${part.models.map((m) => `<i style="background:var(${this.editor.colour(m)})"></i>`).join("")}<b>${esc(part.text)}</b></span>`).join("")}</div>`;
    }

    bar(si, ki) {
      const track = this.place.querySelector(`.mg-track[data-si="${si}"][data-ki="${ki}"]`), n = this.layers(si, ki), [from, to] = this.source(si, ki).layer_range || [0, n];
      const bar = track.firstElementChild, [first, last] = track.querySelectorAll(".mg-edge"), head = track.parentElement;
      track.style.setProperty("--n", n);
      bar.style.left = `${(from / n) * 100}%`;
      bar.style.width = `${(Math.max(0, to - from) / n) * 100}%`;
      bar.style.setProperty("--mg", `var(${this.editor.colour(this.source(si, ki).model)})`);
      bar.querySelector("span").textContent = t("mg.slice.bar", { from, to: to - 1, of: n });
      for (const [edge, value, end] of [[first, from, "from"], [last, to - 1, "to"]]) {
        edge.setAttribute("aria-label", t(`mg.slice.${end}.of`, { n: si + 1, name: this.name(si, ki) }));
        for (const [key, v] of [["min", 0], ["max", n - 1], ["now", value]]) edge.setAttribute(`aria-value${key}`, v);
        const input = head.querySelector(`input[data-end=${end}]`);
        if (document.activeElement !== input) input.value = value;
        input.max = n - 1;
      }
    }

    /** Give a source these layers. All sources of a slice have equally many, so the others follow. */
    set(si, ki, from, to) {
      const n = this.layers(si, ki), low = Math.max(0, Math.min(n - 1, from)), high = Math.max(low + 1, Math.min(n, to)), length = high - low;
      this.list[si].sources.forEach((source, i) => {
        if (i === Number(ki)) return void (source.layer_range = [low, high]);
        const most = this.layers(si, i), start = Math.max(0, Math.min(source.layer_range?.[0] || 0, most - length));
        source.layer_range = [start, start + length];
      });
      this.paint();
    }

    down(event) {
      const bar = event.target.closest(".mg-bar");
      if (!bar || event.button) return;
      const track = bar.parentElement, { si, ki } = track.dataset, end = event.target.dataset.end, box = track.getBoundingClientRect(), n = this.layers(si, ki);
      const [from, to] = this.source(si, ki).layer_range, began = event.clientX;
      const move = (e) => {
        const by = Math.round(((e.clientX - began) / box.width) * n), start = Math.max(0, Math.min(n - (to - from), from + by));
        if (end === "from") this.set(si, ki, Math.min(to - 1, from + by), to);
        else if (end === "to") this.set(si, ki, from, to + by);
        else this.set(si, ki, start, start + to - from);
      };
      const up = () => { bar.classList.remove("mg-drags"); removeEventListener("pointermove", move); this.editor.commit(); };
      event.preventDefault();
      if (end) event.target.focus();
      bar.classList.add("mg-drags");
      addEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) addEventListener(name, up, { once: true });
    }

    key(event) {
      const edge = event.target.closest(".mg-edge"), by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 4, PageDown: -4, Home: -1e6, End: 1e6 }[event.key];
      if (!edge || !by) return;
      const { si, ki } = edge.closest(".mg-track").dataset, [from, to] = this.source(si, ki).layer_range;
      event.preventDefault();
      this.set(si, ki, edge.dataset.end === "from" ? Math.min(to - 1, from + by) : from, edge.dataset.end === "to" ? to + by : to);
      this.editor.commit();
    }

    typed(event) {
      const { end, si, ki } = event.target.dataset;
      if (!end) return;
      const [from, to] = this.source(si, ki).layer_range, value = Math.round(Number(event.target.value)) || 0;
      if (end === "from") this.set(si, ki, value, Math.max(to, value + 1)); else this.set(si, ki, Math.min(from, value), value + 1);
      event.target.value = end === "from" ? this.source(si, ki).layer_range[0] : this.source(si, ki).layer_range[1] - 1;
      this.editor.commit();
    }

    click(event) {
      const { slice: what, si, ki } = event.target.closest("[data-slice]")?.dataset || {}, at = Number(si), { list } = this;
      if (!what) return;
      if (what === "up" || what === "down") { const to = at + (what === "up" ? -1 : 1); [list[at], list[to]] = [list[to], list[at]]; }
      if (what === "copy") list.splice(at + 1, 0, structuredClone(list[at]));
      if (what === "remove") list.splice(at, 1);
      if (what === "without") list[at].sources.splice(Number(ki), 1);
      if (what === "with") list[at].sources.push({ ...structuredClone(list[at].sources[0]), model: "" });
      if (what === "add") list.push(structuredClone(list[at]));
      this.editor.commit();
      this.editor.draw();
      const place = what === "up" ? at - 1 : what === "down" || what === "copy" ? at + 1 : what === "add" ? list.length - 1 : Math.min(at, list.length - 1);
      this.editor.root.querySelectorAll(".mg-slice")[place]?.querySelector(`[data-slice="${what}"]:not(:disabled), .mg-pick`)?.focus();
    }
  }

  studio.MergeSlices = Slices;
})();
