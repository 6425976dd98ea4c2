/* What the probes of behaviour show under their scores: rates with intervals, heat maps, ranges, shares. Registered with the Eval tab. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const HUES = ["--st-accent", "--st-c1", "--st-c2", "--st-c3", "--st-c4", "--st-c5"];
  const isNumber = (v) => typeof v === "number" && isFinite(v);
  const percent = (v) => (isNumber(v) ? `${(100 * v).toFixed(v > 0.0995 && v < 0.9995 || v === 0 || v === 1 ? 0 : 1)} %` : "–");
  const count = (one) => t("probes.count", { k: one.k, n: one.n });
  const hue = (n) => `var(${HUES[n % HUES.length]})`;
  const parts = (studio.probes = { HUES, isNumber, percent, hue });

  /** A part with its heading and what it means. */
  parts.part = (title, about, html) => `<section class="pb-part"><header><h2>${esc(title)}</h2>${about ? `<p class="st-muted">${esc(about)}</p>` : ""}</header>${html}</section>`;

  parts.legend = (labels) => (labels.length > 1 ? `<ul class="pb-legend">${labels.map((one, n) => `<li><i style="background:${hue(n)}"></i>${esc(one)}</li>`).join("")}</ul>` : "");

  /** A table whose cells are coloured by their value. cell(row, column) gives {value, text, more, good} or null; ``value`` runs from 0 to 1. */
  parts.heat = (name, rows, columns, cell, corner = "") => `<div class="pb-scroll" tabindex="0" role="region" aria-label="${esc(name)}"><table class="pb-heat"><thead><tr><th scope="col">${esc(corner)}</th>${columns.map((one) => `<th scope="col"${one.span ? ` colspan="${one.span}"` : ""}>${esc(one.label)}${one.more ? `<small>${esc(one.more)}</small>` : ""}</th>`).join("")}</tr></thead>
    <tbody>${rows.map((row) => `<tr${row.strong ? ' class="pb-strong"' : ""}><th scope="row">${esc(row.label)}${row.more ? `<small>${esc(row.more)}</small>` : ""}</th>${columns.map((column) => {
      const one = cell(row, column);
      if (!one || !isNumber(one.value)) return `<td class="pb-none">–</td>`;
      return `<td style="--v:${Math.round(100 * Math.min(1, Math.max(0, one.value)))}%" class="${one.good ? "pb-good" : "pb-bad"}"><b>${esc(one.text ?? percent(one.value))}</b>${one.more ? `<small>${esc(one.more)}</small>` : ""}</td>`;
    }).join("")}</tr>`).join("")}</tbody></table></div>`;

  /** Bars of shares with their intervals, in groups: [{label, bars: [{label, value, low, high, k, n, hue}]}]. */
  parts.bars = (name, groups) => `<div class="pb-bars" role="group" aria-label="${esc(name)}">${groups.map((group) => `<div class="pb-group"><b>${esc(group.label)}</b><div>${group.bars.map((bar) => `<div class="pb-bar"><span class="pb-track"><i style="width:${(100 * bar.value).toFixed(1)}%;background:${bar.hue}"></i><u style="left:${(100 * bar.low).toFixed(1)}%;width:${(100 * (bar.high - bar.low)).toFixed(1)}%"></u></span><span class="pb-told">${percent(bar.value)} <small>${esc(t("probes.interval", { low: percent(bar.low), high: percent(bar.high) }))} · ${esc(count(bar))}</small><span class="st-visually-hidden">${esc(bar.label)}</span></span></div>`).join("")}</div></div>`).join("")}</div>`;

  const columnsOf = (results) => results.models.map((one, n) => ({ label: one.label, n }));
  const bad = (results, task, metric) => results.tasks[task]?.metrics?.[metric]?.higher_is_better === false;

  studio.evalPanel("eval/safety", (place, { results }) => {
    const { rates = [], techniques = [], decided_by: by } = results.facts, columns = columnsOf(results);
    const rows = [...new Set(rates.map((one) => `${one.category}\t${one.metric}`))].map((key) => { const [category, metric] = key.split("\t"); return { category, metric, label: results.tasks[category]?.title || category, more: t(`probes.metric.${metric}`) }; });
    const of = (category, metric, n) => rates.find((one) => one.category === category && one.metric === metric && one.model === n);
    const mains = rows.filter((row) => row.metric === results.tasks[row.category]?.main);
    const ways = [...new Map(techniques.map((one) => [`${one.category}\t${one.technique}`, one])).values()].map((one) => ({ category: one.category, technique: one.technique, label: one.technique, more: results.tasks[one.category]?.title || one.category }));
    place.className = "pb";
    place.innerHTML = parts.part(t("probes.safety"), t(by === "judge" ? "probes.safety.about.judge" : "probes.safety.about.rules"), parts.heat(t("probes.safety"), rows, columns, (row, column) => {
      const one = of(row.category, row.metric, column.n);
      return one?.n ? { value: one.value, more: count(one), good: !bad(results, row.category, row.metric) } : null;
    }, t("probes.category")))
      + parts.part(t("probes.safety.bars"), t("probes.wilson"), parts.legend(results.models.map((m) => m.label)) + parts.bars(t("probes.safety.bars"), mains.map((row) => ({ label: `${row.label}: ${row.more}`, bars: columns.map((column) => ({ ...of(row.category, row.metric, column.n), label: column.label, hue: hue(column.n) })).filter((one) => one.n) }))))
      + (ways.length ? parts.part(t("probes.techniques"), t("probes.techniques.about"), parts.heat(t("probes.techniques"), ways, columns, (row, column) => {
        const one = techniques.find((each) => each.category === row.category && each.technique === row.technique && each.model === column.n);
        return one?.n ? { value: one.value, more: count(one) } : null;
      }, t("probes.technique"))) : "");
  });

  studio.evalPanel("eval/robustness", (place, { results }) => {
    const { kinds = [], spread = [] } = results.facts, columns = columnsOf(results), label = (kind) => results.tasks[kind]?.title || kind;
    const of = (kind, n) => kinds.find((one) => one.kind === kind && one.model === n);
    const rows = [...new Set(kinds.map((one) => one.kind))].map((kind) => ({ kind, label: label(kind), strong: kind === "plain" }));
    const range = (one) => {
      const at = (v) => `${(100 * v).toFixed(1)}%`;
      return `<div class="pb-range"><b>${esc(results.models[one.model].label)}</b><span class="pb-track"><i style="left:${at(one.worst)};width:${at(one.best - one.worst)};background:${hue(one.model)}"></i><em style="left:${at(one.plain)}" title="${esc(t("probes.plain", { value: percent(one.plain) }))}"></em></span>
        <small>${esc(t("probes.range", { low: percent(one.worst), kind: label(one.worst_kind), high: percent(one.best), plain: percent(one.plain) }))} ${esc(t("probes.unstable", { value: percent(one.unstable.value), k: one.unstable.k, n: one.unstable.n }))}</small></div>`;
    };
    place.className = "pb";
    place.innerHTML = parts.part(t("probes.robustness"), t("probes.robustness.about"), parts.heat(t("probes.robustness"), rows, columns, (row, column) => {
      const one = of(row.kind, column.n);
      return one?.n ? { value: one.value, good: true, more: row.kind === "plain" ? count(one) : one.lost ? t(one.lost > 0 ? "probes.lost" : "probes.won", { value: percent(Math.abs(one.lost)) }) : t("probes.even") } : null;
    }, t("probes.variation")))
      + parts.part(t("probes.spread"), t("probes.spread.about"), `<div class="pb-ranges">${spread.map(range).join("")}</div>`)
      + (rows.length > 1 ? parts.part(t("probes.flips"), t("probes.flips.about"), parts.legend(results.models.map((m) => m.label)) + parts.bars(t("probes.flips"), rows.filter((row) => row.kind !== "plain").map((row) => ({ label: row.label, bars: columns.map((column) => ({ ...of(row.kind, column.n)?.flips, label: column.label, hue: hue(column.n) })).filter((one) => one.n) })))) : "");
  });

  const VERDICTS = { correct: "--st-good", followed: "--st-c3", abstained: "--st-faint", hallucinated: "--st-bad", empty: "--st-line-strong" };

  studio.evalPanel("eval/hallucination", (place, { results }) => {
    const { triad = [], agreement = [] } = results.facts, ways = [...new Set(triad.map((one) => one.way))];
    const stack = (one) => `<div class="pb-stack-line"><span class="pb-who">${esc(results.models[one.model].label)}</span><span class="pb-stack" role="img" aria-label="${esc(Object.entries(one.verdicts).filter(([, v]) => v.k).map(([word, v]) => `${t(`probes.verdict.${word}`)} ${percent(v.value)}`).join(", "))}">${Object.entries(one.verdicts).filter(([, v]) => v.k).map(([word, v]) => `<i class="pb-v-${word}" style="flex-grow:${v.k}" title="${esc(`${t(`probes.verdict.${word}`)}: ${percent(v.value)} (${percent(v.low)}–${percent(v.high)})`)}">${v.value > 0.07 ? percent(v.value) : ""}</i>`).join("")}</span><small>${isNumber(one.supported) ? esc(t("probes.supported", { value: percent(one.supported) })) : ""}</small></div>`;
    const agree = (one) => `<div class="pb-range"><b>${esc(results.models[one.model].label)}</b><span class="pb-track"><i style="left:0;width:${(100 * one.value).toFixed(1)}%;background:${hue(one.model)}"></i></span><small>${esc(t("probes.agree", { value: percent(one.value), n: one.samples }))} ${esc(Object.entries(one.by_verdict).map(([word, v]) => t("probes.agree.of", { word: t(`probes.verdict.${word}`), value: percent(v.value), n: v.n })).join(" · "))}</small></div>`;
    place.className = "pb";
    place.innerHTML = (triad.length ? parts.part(t("probes.triad"), t("probes.triad.about"), `<ul class="pb-legend">${Object.entries(VERDICTS).map(([word]) => `<li><i class="pb-v-${word}"></i>${esc(t(`probes.verdict.${word}`))}</li>`).join("")}</ul>
      <div class="pb-triad">${ways.map((way) => `<div class="pb-way"><h3>${esc(results.tasks[way]?.title || way)}</h3>${triad.filter((one) => one.way === way).map(stack).join("")}</div>`).join("")}</div>`) : "")
      + (agreement.length ? parts.part(t("probes.consistency"), t("probes.consistency.about"), `<div class="pb-ranges">${agreement.map(agree).join("")}</div>`) : "");
  });

  studio.evalPanel("eval/prompt_following", (place, { results, run }) => {
    const { rules = [], all = [] } = results.facts, ways = ["asked", "unasked"].filter((way) => results.tasks[way]);
    const columns = results.models.flatMap((one, n) => ways.map((way) => ({ label: one.label, more: results.tasks[way].title, n, way })));
    const rows = [...rules.map((one, n) => ({ label: one.rule, more: one.judged ? t("probes.judged") : "", cells: one.cells, n })), { label: t("probes.all_rules"), cells: all, strong: true }];
    place.className = "pb";
    place.innerHTML = parts.part(t("probes.rules"), t("probes.rules.about"), parts.heat(t("probes.rules"), rows, columns, (row, column) => {
      const one = row.cells.find((cell) => cell.model === column.n && cell.way === column.way);
      return one?.n ? { value: one.value, good: true, more: count(one) + (one.undecided ? ` · ${t("probes.undecided", { n: one.undecided })}` : "") } : null;
    }, t("probes.rule")) + `<details class="pb-prompt"><summary>${esc(t("probes.prompt"))}</summary><pre>${esc(run.recipe?.system_prompt || "")}</pre></details>`);
  });
})();
