/* What a step tells about its work beyond the counts: the model it asked, the prompt it wrote, how well rules are kept. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { num } = studio.dataParts;
  const WAYS = ["before", "unasked", "asked"], LONG = 90;
  const plain = (v) => (typeof v === "number" ? (Number.isInteger(v) ? num(v) : studio.num(v)) : typeof v === "boolean" ? t(v ? "data.facts.yes" : "data.facts.no") : String(v));
  const simple = (v) => v !== null && typeof v !== "object";

  function shown(value) {
    if (simple(value)) return String(value).length > LONG ? `<pre class="st-code">${esc(value)}</pre>` : esc(plain(value));
    if (Array.isArray(value)) {
      if (value.every(simple)) return esc(value.map(plain).join(" · "));
      const keys = [...new Set(value.flatMap((item) => Object.keys(item || {})))];
      return `<table class="st-table"><thead><tr>${keys.map((k) => `<th scope="col">${esc(word(k))}</th>`).join("")}</tr></thead><tbody>${value.slice(0, 50).map((item) => `<tr>${keys.map((k) => `<td>${item?.[k] == null ? "" : shown(item[k])}</td>`).join("")}</tr>`).join("")}</tbody></table>`;
    }
    return esc(Object.entries(value).map(([k, v]) => `${word(k)} ${simple(v) ? plain(v) : JSON.stringify(v)}`).join(", "));
  }
  const word = (key) => String(key).replaceAll("_", " ");

  /** How many answers keep each rule, with the prompt and without it. */
  function rules({ rules: list, all, questions }) {
    const ways = WAYS.filter((way) => all?.[way]?.of);
    const share = (part) => (part?.of ? `<b>${Math.round((100 * part.kept) / part.of)} %</b> <small class="st-muted">${esc(t("data.rules.of", { kept: num(part.kept), of: num(part.of) }))}</small>` : "–");
    const row = (name, parts) => `<tr><th scope="row">${esc(name)}</th>${ways.map((way) => `<td>${share(parts[way])}</td>`).join("")}</tr>`;
    return `<h3>${esc(t("data.rules", { n: num(questions) }))}</h3><table class="st-table dt-rules"><thead><tr><th></th>${ways.map((way) => `<th scope="col">${esc(t(`data.rules.${way}`))}</th>`).join("")}</tr></thead>
      <tbody>${list.map((rule) => row(rule.rule, rule)).join("")}${list.length > 1 ? row(t("data.rules.all"), all) : ""}</tbody></table>`;
  }

  /** Everything a step tells, folded; a check of rules stands open above it. */
  studio.dataFacts = (entry) => {
    const facts = entry?.facts || {}, checked = Array.isArray(facts.rules) && facts.all;
    const rest = Object.entries({ ...facts, ...(entry?.mended?.length ? { mended: entry.mended.map((m) => `${num(m.count)} ${m.message}`) } : {}) })
      .filter(([key, value]) => value !== null && value !== "" && !(Array.isArray(value) && !value.length) && !(checked && ["rules", "all", "questions"].includes(key)));
    if (!rest.length && !checked) return "";
    return `${checked ? `<div class="dt-check">${rules(facts)}</div>` : ""}${rest.length ? `<details class="dt-facts"><summary>${esc(t("data.facts"))}</summary><dl>${rest.map(([key, value]) => `<dt>${esc(word(key))}</dt><dd>${shown(value)}</dd>`).join("")}</dl></details>` : ""}`;
  };
})();
