/* Base against tuned: a model and what it came from, on the same tasks and on rows that it was not trained on, in one evaluation. */
(() => {
  "use strict";
  const studio = window.studio, t = studio.t;
  const MOST = 4;  // models at once: the nearest ancestors and the model

  /** Ask how a model compares with what it came from. `bases`: references, where they are known better than its lineage says. */
  studio.evalAgainst = async (ref, bases = null) => {
    try {
      const [found, tasks] = await Promise.all([studio.call("eval_against", { ref }), studio.evalTasks()]);
      const own = found.held_out, from = (bases || found.bases.map((base) => base.ref)).filter((base) => base !== ref).slice(0, MOST - 1);
      const suite = tasks.filter((task) => task.source === "suite").map((task) => task.name);
      const held = own ? t(`eval.against.held.${own.kind}`, { n: studio.num(own.rows) }) : found.note || t("eval.against.held.none");
      const named = from.length === 1 ? found.bases.find((base) => base.ref === from[0])?.label : "";
      await studio.evalStart({
        method: "harness", models: [...from, ref], ...(suite.length ? { tasks: suite } : {}), ...(own ? { dataset: own.ref } : {}),
        name: t(named ? "eval.against.name" : "eval.against.name.many", { name: found.model.label, base: named }).slice(0, 80),
      }, { title: t("eval.against"), note: `${from.length ? "" : `${t("eval.against.nothing")} `}${held}` });
    } catch (error) { studio.failed(error); }
  };

  /** Whether a model of this kind of run can be compared so. */
  studio.evalAgainstKey = (kind) => (kind === "merge" ? "eval.against.parents" : "eval.against");
})();
