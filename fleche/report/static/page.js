// Putting it together, in light or dark.

const units = { activity: "calls", treemap: "bytes" };
let setLevel = () => {};

function stored(value) {
  try {
    if (value !== undefined) localStorage.setItem("fleche-report-theme", value);
    return localStorage.getItem("fleche-report-theme") || "auto";
  } catch { return value || "auto"; } // a file may have no storage
}

const isDark = matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = stored();
function applyTheme() {
  document.documentElement.dataset.theme = chosenTheme === "auto" ? (isDark.matches ? "dark" : "light") : chosenTheme;
}
function redraw() {
  showBalance();
  showActivity(units.activity);
  showTreemap(units.treemap);
  showLineage();
  showPlots();
}

function start() {
  applyTheme();
  isDark.addEventListener("change", () => { applyTheme(); redraw(); });
  segments("theme", [["auto", "Auto"], ["light", "Light"], ["dark", "Dark"]], chosenTheme, (value) => { chosenTheme = value; stored(value); applyTheme(); redraw(); });
  byId("title").textContent = data.title;
  byId("subtitle").textContent = data.source;
  byId("methods").textContent = data.methods;
  byId("made").textContent = `Made by fleche ${data.version} on ${moment(data.made)}. Times are those of the reader's zone.`;
  byId("copy-methods").addEventListener("click", (event) => copyText(data.methods, event.currentTarget));
  showHero();
  startOfLineage();
  segments("activity-unit", [["calls", "Calls"], ["time", "Time"]], units.activity, (value) => { units.activity = value; showActivity(value); });
  segments("treemap-unit", [["bytes", "Bytes"], ["time", "Time"], ["calls", "Calls"]], units.treemap, (value) => { units.treemap = value; showTreemap(value); });
  setLevel = segments("lineage-level", [["functions", "Functions"], ["calls", "Calls"]], lineage.level, (value) => { lineage.level = value; showLineage(); });
  showActivity(units.activity);
  showTreemap(units.treemap);
  showLineage();
  preparePlots();
  prepareTable();
  openFromAddress();
  addEventListener("hashchange", openFromAddress);
  document.documentElement.dataset.ready = "true";
}

// `#call=ab12...` opens a call: an address inside the page that can be passed on.
function openFromAddress() {
  const found = /^#call=([0-9a-f]{4,64})$/.exec(location.hash);
  const at = found ? data.calls.findIndex((call) => call[KEY].startsWith(found[1])) : -1;
  if (at >= 0) openCall(at);
}

start();
