/* Versions: the list of datasets grouped by family, and the difference between any two of them. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { num, total, titleOf } = studio.dataParts;
  const PAGE = 50, SHOWN = 3000;
  const refOf = (parent) => (typeof parent === "string" ? parent : parent?.ref);

  /** Versions that came of one another, the family with the newest member first; in each the newest final one first. */
  function families(versions) {
    const at = new Map(versions.map((v) => [v.ref, v])), root = new Map();
    const top = (ref, seen = new Set()) => {
      if (root.has(ref)) return root.get(ref);
      const parent = (at.get(ref)?.parents || []).filter((p) => typeof p === "string" || !p.role || p.role === "dataset").map(refOf).find((r) => at.has(r) && !seen.has(r));
      const found = parent ? top(parent, seen.add(ref)) : ref;
      root.set(ref, found);
      return found;
    };
    const found = new Map();
    for (const v of versions) { const key = top(v.ref); if (!found.has(key)) found.set(key, []); found.get(key).push(v); }
    return [...found.values()].map((all) => {
      all.sort((a, b) => b.created - a.created);
      return { key: top(all[0].ref), all, final: all.filter((v) => v.stage !== "step"), steps: all.filter((v) => v.stage === "step") };
    }).sort((a, b) => b.all[0].created - a.all[0].created);
  }

  const line = (v, now) => `<button type="button" class="dt-item${v.ref === now ? " dt-now" : ""}" data-ref="${esc(v.ref)}" ${v.ref === now ? 'aria-current="true"' : ""} title="${esc(`${v.name} · ${v.ref}`)}"><b>${esc(v.name)}</b><small>${esc(t("library.rows", { n: num(v.total ?? total(v.rows)) }))} · ${esc(v.steps === 1 ? t("data.steps.one") : t("data.steps.n", { n: v.steps }))} · ${esc(studio.ago(v.created))}</small></button>`;

  /** The rail's list. */
  studio.dataList = (place, versions, now, filter, unfolded) => {
    const found = families(versions.filter((v) => !filter || `${v.name} ${v.format} ${v.ref}`.toLowerCase().includes(filter)));
    const html = found.map((f) => {
      const steps = f.final.length ? f.steps : [], shown = f.final.length ? f.final : f.all, open = unfolded.has(f.key) || steps.some((v) => v.ref === now);
      return `<section class="dt-family">${shown.slice(0, 1).map((v) => line(v, now)).join("")}${shown.length > 1 ? `<div class="dt-older">${shown.slice(1).map((v) => line(v, now)).join("")}</div>` : ""}
        ${steps.length ? `<button type="button" class="st-link dt-fold" data-fold="${esc(f.key)}" aria-expanded="${open}">${esc(t(open ? "data.list.fold" : "data.list.unfold", { n: steps.length }))}</button>${open ? `<div class="dt-older">${steps.map((v) => line(v, now)).join("")}</div>` : ""}` : ""}</section>`;
    }).join("");
    if (place.dataset.shown !== html) { place.innerHTML = html || `<p class="dt-none">${esc(t(filter ? "library.none_match" : "data.list.empty"))}</p>`; place.dataset.shown = html; }
  };

  /** A row as a person reads it. */
  const textOf = (row) => {
    if (!row) return "";
    const turns = (list) => list.map((m) => `${m.role}: ${typeof m.content === "string" ? m.content : JSON.stringify(m.content ?? m.tool_calls ?? "")}`).join("\n");
    const part = (value) => (Array.isArray(value) && value.every((m) => m?.role) ? turns(value) : typeof value === "string" ? value : JSON.stringify(value));
    if (Array.isArray(row.messages) && !("label" in row)) return turns(row.messages);
    if (typeof row.text === "string") return row.text;
    return Object.entries(row).map(([key, value]) => `${key}: ${part(value)}`).join("\n");
  };

  /** The two texts with what differs between their common beginning and end marked. */
  function marked(before, after) {
    let head = 0, tail = 0;
    const most = Math.min(before.length, after.length);
    while (head < most && before[head] === after[head]) head++;
    while (tail < most - head && before[before.length - 1 - tail] === after[after.length - 1 - tail]) tail++;
    const word = (text, tag) => `${esc(text.slice(0, head))}<${tag}>${esc(text.slice(head, text.length - tail))}</${tag}>${esc(tail ? text.slice(text.length - tail) : "")}`;
    return [word(before, "del"), word(after, "ins")];
  }

  class Versions {
    mount(root, shared) {
      Object.assign(this, { root, shared });
      root.innerHTML = `<div class="dt-diff"><div class="st-toolbar dt-diff-pick"><label>${esc(t("data.diff.a"))} <select data-side="a"></select></label><span aria-hidden="true">→</span><label>${esc(t("data.diff.b"))} <select data-side="b"></select></label></div><div class="dt-diff-body"></div></div>`;
      this.body = root.querySelector(".dt-diff-body");
      root.onchange = (event) => { if (event.target.dataset.side) { this[event.target.dataset.side] = event.target.value; this.compare(); } };
      this.body.onclick = (event) => {
        const kind = event.target.closest("[data-kind]")?.dataset.kind;
        if (kind) { this.kind = this.kind === kind ? "" : kind; this.compare(true); }
        if (event.target.closest("[data-more]")) this.more();
      };
    }

    show(open) {
      const versions = this.shared.versions(), same = this.open?.ref === open.ref;
      this.open = open;
      if (!same) {
        const pipeline = open.pipeline || [], before = pipeline.slice(0, -1).reverse().find((s) => s.ref)?.ref;
        const family = families(versions).find((f) => f.all.some((v) => v.ref === open.ref));
        this.b = open.ref;
        this.a = before || family?.all.find((v) => v.ref !== open.ref)?.ref || "";
      }
      const option = (now) => (v) => `<option value="${esc(v.ref)}" ${v.ref === now ? "selected" : ""}>${esc(`${v.name} · ${num(v.total ?? total(v.rows))} · ${studio.ago(v.created)}`)}</option>`;
      for (const side of ["a", "b"]) this.root.querySelector(`[data-side=${side}]`).innerHTML = `${this[side] ? "" : `<option value="">${esc(t("data.diff.choose"))}</option>`}${versions.map(option(this[side])).join("")}`;
      if (!same || !this.found) this.compare();
    }

    hide() {}

    async compare(same = false) {
      const { a, b } = this;
      if (!same) this.kind = "";
      this.rows = [];
      this.found = null;
      if (!a || !b || a === b) return void (this.body.innerHTML = `<div class="st-empty"><b>${esc(t("data.diff.empty"))}</b><p>${esc(t("data.diff.empty.hint"))}</p></div>`);
      this.body.innerHTML = `<div class="st-working" role="status">${esc(t("data.diff.working"))}</div>`;
      try {
        const found = await this.shared.call("data_diff", { a, b, kind: this.kind, offset: 0, limit: PAGE });
        if (a !== this.a || b !== this.b) return;
        if (!this.kind && found.moved && !found.matching) { this.kind = "moved"; return this.compare(true); }
        this.found = found;
        this.rows = found.rows;
        this.draw();
      } catch (error) { if (a === this.a && b === this.b) this.body.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
    }

    async more() {
      try {
        const found = await this.shared.call("data_diff", { a: this.a, b: this.b, kind: this.kind, offset: this.rows.length, limit: PAGE });
        this.rows = [...this.rows, ...found.rows];
        this.draw();
      } catch (error) { studio.failed(error); }
    }

    draw() {
      const f = this.found, tile = (key) => `<button type="button" class="dt-diff-${key}" data-kind="${key === "same" ? "" : key}" ${key === "same" || !f[key] ? "disabled" : ""} aria-pressed="${this.kind === key}"><span>${esc(t(`data.diff.${key}`))}</span><b>${num(f[key])}</b></button>`;
      const count = f.matching;
      this.body.innerHTML = `<div class="dt-diff-tiles">${["same", "changed", "added", "removed", ...(f.moved ? ["moved"] : [])].map(tile).join("")}</div>${this.steps(f.steps)}
        ${this.rows.length ? `<ul class="dt-diff-rows">${this.rows.map((r) => this.row(r)).join("")}</ul>` : `<p class="st-good">${esc(t("data.diff.none"))}</p>`}
        ${this.rows.length && this.rows.length < count ? `<button type="button" class="st-btn" data-more>${esc(t("data.diff.more", { n: num(count - this.rows.length) }))}</button>` : ""}`;
    }

    /** Steps that only one of the two went through. */
    steps(steps) {
      if (!steps) return "";
      const known = this.shared.steps(), sides = ["a", "b"].map((side) => [side, steps.filter((s) => s.where === side)]);
      const said = (s) => `<li><b>${esc(s.title || titleOf(known, s.step.method))}</b> <small class="st-muted">${esc(Object.entries(s.step).filter(([k]) => k !== "method").map(([k, v]) => `${k} = ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", "))}</small></li>`;
      const shown = sides.filter(([, list]) => list.length);
      return shown.length ? `<div class="dt-diff-steps">${shown.map(([side, list]) => `<div><h3>${esc(t(`data.diff.only.${side}`))}</h3><ul>${list.map(said).join("")}</ul></div>`).join("")}</div>` : "";
    }

    row(r) {
      const before = textOf(r.before?.row ?? r.before).slice(0, SHOWN), after = textOf(r.after?.row ?? r.after).slice(0, SHOWN);
      const [a, b] = r.kind === "changed" ? marked(before, after) : [esc(before), esc(after)];
      const split = (side) => { const name = side?.split || "train", key = `data.split.${name}`; return t(key) === key ? name : t(key); };
      const side = (html, kind) => `<pre class="dt-diff-side dt-${kind}">${html || `<span class="st-muted">${esc(t(`data.diff.nothing.${r.kind}`))}</span>`}</pre>`;
      const where = r.kind === "moved" ? `<small class="st-muted">${esc(t("data.diff.where", { from: split(r.before), to: split(r.after) }))}</small>` : "";
      return `<li class="dt-diff-row dt-kind-${esc(r.kind)}"><span><span class="st-tag">${esc(t(`data.diff.${r.kind}`))}</span>${where}</span><div>${side(a, "before")}${side(b, "after")}</div></li>`;
    }
  }

  studio.dataViews.versions = new Versions();
})();
