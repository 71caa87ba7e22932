// The audit of the build, if it has one.

const VERDICTS = { pass: "✓", warn: "!", fail: "✕", unknown: "?" };

function auditPanel(audit) {
  const counts = Object.keys(VERDICTS)
    .map((verdict) => [verdict, audit.checks.filter((check) => check.verdict === verdict).length])
    .filter(([, count]) => count)
    .map(([verdict, count]) => `${count} ${verdict}`);
  // the roles are explicit, because a table that is displayed as blocks on a phone would lose them
  const cell = (text, head) => element("td", { role: "cell", "data-head": head }, text);
  const row = (check) => element(
    "tr",
    { role: "row" },
    element("td", { role: "cell", className: `verdict ${check.verdict}` }, element("span", { "aria-hidden": "true" }, `${VERDICTS[check.verdict]} `), check.verdict),
    element("td", { role: "cell", className: "name" }, check.title ?? check.name),
    cell(check.measured ?? "unknown", "Measured"),
    cell(check.expected ?? "", "Expected"),
    cell(check.detail ?? "", "Explanation"),
  );
  const heads = ["Verdict", "Check", "Measured", "Expected", "Explanation"];
  return [
    element("div", { className: "intro" }, element("p", {}, "Checks of the content of this build."), element("p", { className: "quiet" }, `${counts.join(", ")} · ${audit.generator ?? ""}`)),
    element("div", { className: "scroll", role: "region", "aria-label": "checks", tabIndex: 0 }, element(
      "table",
      { className: "checks", role: "table" },
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, heads.map((text) => element("th", { role: "columnheader", scope: "col" }, text)))),
      element("tbody", { role: "rowgroup" }, audit.checks.map(row)),
    )),
  ];
}
