/* The chooser of a method: first what one has, then the ways to learn from it. It moves gradio's own radio behind it. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const FEW = 3; // ways of one group that are always in sight

  studio.parts.methods = ({ root, props }) => {
    const { tab, kind } = props, groups = new Map();
    for (const [name, facts] of studio.methodsOf(kind)) {
      const group = facts.group && studio.known(`methods.${kind}.${facts.group}`) ? facts.group : "other";
      groups.set(group, [...(groups.get(group) || []), { name, group, ...facts }]);
    }
    const all = [...groups.values()].flat();
    const held = () => document.querySelector(`#${tab}-method input:checked`)?.value;
    let now = all.find(({ name }) => name === held()) || all[0], wide = false;

    const card = (way) => `<div class="st-way"><label><input type="radio" name="${tab}-way" value="${esc(way.name)}" ${way === now ? "checked" : ""}>
      <b>${esc(way.title)}</b><span>${esc(way.summary)}</span></label>${way.paper ? `<a href="${esc(way.paper)}" target="_blank" rel="noopener noreferrer"
      aria-label="${esc(t("methods.paper.of", way))}">${esc(t("methods.paper"))}</a>` : ""}</div>`;

    const draw = () => {
      const ways = groups.get(now.group), others = ways.length - 1, whole = wide || ways.length <= FEW;
      const active = root.contains(document.activeElement) ? document.activeElement : null;
      const again = active && (active.name ? `[name="${active.name}"]:checked` : `[data-fold]`);
      root.innerHTML = `<fieldset class="st-have"><legend>${esc(t(`methods.ask.${kind}`))}</legend>${[...groups.keys()].map((group) =>
        `<label><input type="radio" name="${tab}-group" value="${esc(group)}" ${group === now.group ? "checked" : ""}><span>${esc(t(`methods.${kind}.${group}`))}</span></label>`).join("")}</fieldset>
        <fieldset class="st-ways"><legend class="st-visually-hidden">${esc(t("methods.chosen"))}</legend>${(whole ? ways : [now]).map(card).join("")}</fieldset>
        ${ways.length > FEW ? `<button type="button" class="st-link st-small-link" data-fold aria-expanded="${whole}">${esc(whole ? t("methods.fewer") : t("methods.more", { n: others }))}</button>` : ""}`;
      if (again) root.querySelector(again)?.focus();
    };

    const choose = (way) => {
      now = way;
      draw();
      document.querySelector(`#${tab}-method input[value="${CSS.escape(way.name)}"]`)?.click();
    };

    root.addEventListener("change", ({ target }) => {
      if (target.name === `${tab}-way`) return choose(all.find(({ name }) => name === target.value));
      wide = true;
      choose(groups.get(target.value)[0]);
    });
    root.addEventListener("click", (event) => {
      if (!event.target.closest("[data-fold]")) return;
      wide = !wide;
      draw();
    });
    window.addEventListener("studio:form", (event) => {
      const name = held();
      if (event.detail !== tab || !name || name === now.name) return;
      now = all.find((way) => way.name === name) || now;
      draw();
    });
    draw();
  };
})();
