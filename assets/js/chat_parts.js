/* Pieces of the Chat tab that keep no state: icons, messages, status lines, the settings panel. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const path = (d) => `<svg viewBox="0 0 16 16" width="15" height="15" aria-hidden="true"><path d="${d}" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round"/></svg>`;
  const icons = {
    plus: path("M8 3v10M3 8h10"), branch: path("M5 3v6.500M5 12.500v.5M5 5.500h3.500a2.500 2.500 0 0 1 2.500 2.500v1.500M9 11l2 2 2-2M3.500 11a1.500 1.500 0 1 0 3 0 1.500 1.500 0 1 0-3 0"), picture: path("M2.500 3.500h11v9h-11zM2.500 10.500l3-3 2.500 2.500 2-2 3.500 3.500M10.200 6a.8.8 0 1 0 .1 0"), take: path("M8 3v7M5 7.300l3 3 3-3M3 13h10"), close: path("M4 4l8 8M12 4l-8 8"), sliders: path("M2.5 5h6M12 5h1.5M2.5 11H4M7.500 11h6M10.200 3.300v3.400M5.700 9.300v3.400"),
    edit: path("M10.500 3l2.500 2.500L6 12.500l-3 .5.5-3z"), retry: path("M12.800 8A4.800 4.800 0 1 1 11.300 4.500M11.500 2v2.800H8.700"), copy: path("M6 5.500h6.500v7.500H6zM3.500 10.500V3H10"),
    bin: path("M3 4.500h10M6.500 4.500V3h3v1.500M4.500 4.500l.6 8.500h5.800l.6-8.500"), list: path("M3 4h10M3 8h10M3 12h6"), send: path("M8 13V3.500M4 7.300 8 3.300l4 4"), stop: '<svg viewBox="0 0 16 16" width="13" height="13" aria-hidden="true"><rect x="3.500" y="3.500" width="9" height="9" rx="1.500" fill="currentColor"/></svg>',
  };
  const seconds = (s) => (s == null ? "–" : s < 1 ? s.toFixed(2) : s.toFixed(1));
  const button = (act, icon, key, more = "") => `<button type="button" class="ch-act" data-act="${act}" title="${esc(t(key))}" aria-label="${esc(t(key))}" ${more}>${icons[icon]}</button>`;

  const THOUGHT = /^\s*<think>([\s\S]*?)(?:<\/think>\s*|$)/;

  /** An answer as HTML, what was thought before it folded; `open` keeps it unfolded. */
  const spoken = (m, open = false) => {
    const thought = (m.content || "").match(THOUGHT), rest = thought ? m.content.slice(thought[0].length) : m.content;
    if (!thought) return studio.markdown(rest);
    const still = !rest && (m.state === "answering" || m.state === "loading"), words = thought[1].trim().split(/\s+/).filter(Boolean).length;
    return `<details class="ch-thought" ${open ? "open" : ""}><summary>${esc(still ? t("chat.thinking", { n: words }) : t("chat.thought", { n: words }))}</summary><div>${studio.markdown(thought[1].trim())}</div></details>${studio.markdown(rest)}`;
  };
  const pictures = (m) => (m.images?.length ? `<div class="ch-pictures">${m.images.map((url, i) => `<img src="${esc(url)}" alt="${esc(t("chat.picture", { n: i + 1 }))}">`).join("")}</div>` : "");
  const pager = (m, rest) => {
    const all = (m.others?.length || 0) + 1, now = m.place ?? all - 1;
    if (all < 2) return "";
    const to = (which, sign, key) => `<button type="button" class="ch-act" data-act="choose" data-which="${which}" ${rest && which >= 0 && which < all ? "" : "disabled"} aria-label="${esc(t(key))}" title="${esc(t(key))}">${sign}</button>`;
    return `<span class="ch-pager">${to(now - 1, "‹", "chat.earlier")}<span>${now + 1}/${all}</span>${to(now + 1, "›", "chat.later")}</span>`;
  };

  /** One message as HTML; `index` is its place, `label` the model named by the column now. */
  const message = (m, index, label, rest) => {
    if (m.role === "user") {
      return `<div class="ch-msg ch-user" data-i="${index}" data-testid="user">${pictures(m)}<div class="ch-text">${esc(m.content)}</div>
        <div class="ch-acts">${button("copy", "copy", "chat.copy.title")}${rest ? button("edit", "edit", "chat.edit.title") : ""}</div></div>`;
    }
    const other = m.model && m.model !== label ? `<div class="ch-by">${esc(m.model)}</div>` : "";
    const failed = m.state === "failed" ? `<div class="ch-fail" role="alert"><b>${esc(m.error || t("chat.failed"))}</b>${m.hint ? `<p>${esc(m.hint)}</p>` : ""}</div>` : "";
    const empty = m.state === "done" && !m.content && m.finish !== "stopped" && m.finish !== "interrupted" ? `<p class="ch-quiet">${esc(t("chat.answer_empty"))}</p>` : "";
    const live = m.state === "answering" || m.state === "loading";
    return `<div class="ch-msg ch-bot${live ? " ch-live" : ""}" data-i="${index}" data-testid="bot">${other}<div class="ch-text">${spoken(m)}${empty}</div>${failed}
      ${live ? "" : `<div class="ch-acts">${m.content ? button("copy", "copy", "chat.copy.title") : ""}${rest ? button("retry", "retry", "chat.retry.title") : ""}${button("branch", "branch", "chat.branch")}${pager(m, rest)}</div>`}</div>`;
  };

  /** The line under a column: what its last answer was, or how the coming one stands. */
  const status = (m) => {
    if (!m) return `<span>${esc(t("chat.status.ready"))}</span>`;
    const s = (m.seconds ?? 0).toFixed(1), parts = [];
    if (m.state === "loading") return `<span class="ch-busy">${esc(m.crashed ? t("chat.status.restarted", { why: m.crashed, s }) : m.seconds > 0.3 ? t("chat.status.starting", { s }) : t("chat.status.waiting", { s }))}</span>`;
    if (m.state === "answering" && !m.content) return `<span class="ch-busy">${esc(t("chat.status.waiting", { s }))}</span>`;
    if (m.state === "answering") parts.push(`<span class="ch-busy">${esc(t("chat.status.answering", { s }))}</span>`);
    if (m.state === "failed") parts.push(`<span class="ch-bad">${esc(t("chat.failed"))}</span>`);
    if (m.ttft != null) parts.push(`<span data-stat="ttft">${esc(t("chat.status.ttft", { s: seconds(m.ttft) }))}</span>`);
    if (m.tokens_per_second) parts.push(`<span data-stat="speed">${esc(t("chat.status.speed", { n: m.tokens_per_second < 10 ? m.tokens_per_second.toFixed(1) : Math.round(m.tokens_per_second) }))}</span>`);
    if (m.tokens != null) parts.push(`<span data-stat="tokens">${esc(t(m.tokens === 1 ? "chat.status.token" : "chat.status.tokens", { n: m.tokens }))}</span>`);
    if (["length", "stopped", "interrupted"].includes(m.finish) && m.state === "done") parts.push(`<span class="ch-warn">${esc(t(`chat.finish.${m.finish}`))}</span>`);
    return parts.join("") + (m.note ? `<span class="ch-note" title="${esc(m.note)}">${esc(m.note)}</span>` : "") || `<span>${esc(t("chat.status.ready"))}</span>`;
  };

  const FIELDS = [["temperature", 0.05], ["top_p", 0.05], ["top_k", 1], ["min_p", 0.01], ["repetition_penalty", 0.05], ["max_tokens", 1], ["seed", 1]];

  /** A panel that changes `target.system` and `target.settings`; `id` keeps its labels apart. */
  const settings = (place, target, { defaults, limits }, id, changed) => {
    const value = (name) => target.settings[name] ?? defaults[name] ?? "";
    place.innerHTML = `<div class="ch-set"><label class="ch-system" for="${id}-system"><span>${esc(t("chat.system"))}</span><textarea id="${id}-system" rows="2" placeholder="${esc(t("chat.system.placeholder"))}">${esc(target.system)}</textarea></label>
      ${FIELDS.map(([name, step]) => `<label for="${id}-${name}" title="${esc(t(`chat.set.${name}.help`))}"><span>${esc(t(`chat.set.${name}`))}</span><input id="${id}-${name}" data-set="${name}" type="number" inputmode="decimal" min="${limits[name][0]}" max="${limits[name][1]}" step="${step === 1 ? 1 : "any"}"
        data-step="${step}" value="${esc(value(name))}" placeholder="${name === "seed" ? esc(t("chat.set.seed.any")) : ""}" aria-describedby="${id}-${name}-problem"><em id="${id}-${name}-problem" hidden></em></label>`).join("")}
      <button type="button" class="st-btn st-small" data-reset>${esc(t("chat.settings.reset"))}</button></div>`;
    place.querySelector("textarea").oninput = (event) => { target.system = event.target.value; changed(); };
    for (const input of place.querySelectorAll("[data-set]")) {
      const name = input.dataset.set, problem = input.nextElementSibling;
      input.oninput = () => {
        const [low, high] = limits[name], number = input.value.trim() === "" ? null : Number(input.value);
        const bad = input.validity.badInput || (number !== null && !(number >= low && number <= high));
        problem.hidden = !bad;
        problem.textContent = bad ? `${low} – ${high}` : "";
        input.setAttribute("aria-invalid", String(bad));
        if (bad) return;
        if (number === null || number === defaults[name]) delete target.settings[name]; else target.settings[name] = number;
        changed();
      };
      input.onkeydown = (event) => {  // whole steps, also where the browser would step by "any"
        const way = { ArrowUp: 1, ArrowDown: -1 }[event.key], step = +input.dataset.step;
        if (!way) return;
        event.preventDefault();
        const [low, high] = limits[name];
        input.value = +Math.min(high, Math.max(low, (Number(input.value) || 0) + way * step)).toFixed(4);
        input.oninput();
      };
    }
    place.querySelector("[data-reset]").onclick = () => { target.settings = {}; settings(place, target, { defaults, limits }, id, changed); changed(); };
  };

  /** The settings in a few words. */
  const summary = (target, defaults) => {
    const value = (name) => target.settings[name] ?? defaults[name];
    const others = Object.keys(target.settings).filter((n) => !["temperature", "max_tokens"].includes(n)).length;
    return [target.system.trim() && t("chat.system.set"), t("chat.sum.temperature", { n: value("temperature") }), t("chat.sum.tokens", { n: value("max_tokens") }), others && t("chat.sum.changed", { n: others })].filter(Boolean).join(" · ");
  };

  studio.chatParts = { icons, spoken, message, status, settings, summary };
})();
