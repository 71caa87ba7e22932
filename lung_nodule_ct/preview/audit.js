// The audit of the build, if it has one.

const VERDICTS = { pass: "✓", warn: "!", fail: "✕", unknown: "?" };

function auditPanel(audit) {
  const counts = Object.keys(VERDICTS)
    .map((verdict) => [verdict, audit.checks.filter((check) => check.verdict === verdict).length])
    .filter(([, count]) => count)
    .map(([verdict, count]) => `${count} ${verdict}`);
  const row = (check) => element(
    "tr",
    {},
    element("td", { className: `verdict ${check.verdict}` }, element("span", { "aria-hidden": "true" }, `${VERDICTS[check.verdict]} `), check.verdict),
    element("td", {}, check.title ?? check.name),
    element("td", {}, check.measured ?? "unknown"),
    element("td", {}, check.expected ?? ""),
    element("td", {}, check.detail ?? ""),
  );
  const heads = ["Verdict", "Check", "Measured", "Expected", "Explanation"];
  return [
    element("div", { className: "intro" }, element("p", {}, "Checks of the content of this build."), element("p", { className: "quiet" }, `${counts.join(", ")} · ${audit.generator ?? ""}`)),
    element("div", { className: "scroll" }, element(
      "table",
      { className: "checks" },
      element("thead", {}, element("tr", {}, heads.map((text) => element("th", { scope: "col" }, text)))),
      element("tbody", {}, audit.checks.map(row)),
    )),
  ];
}
