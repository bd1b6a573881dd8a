// One call: its record, packages, code, what it called, and what can be seen of its result.

function section(name, content) {
  return content ? element("section", [element("h3", name), content]) : null;
}
function pairs(items) {
  const found = items.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return found.length ? element("dl", found.flatMap(([name, value]) => [element("dt", name), element("dd", value)]), { class: "pairs" }) : null;
}
function chips(items) {
  return items.length ? element("div", items, { class: "chips" }) : null;
}
function linksTo(places, missing = 0) {
  const shown = places.slice(0, 24).map((at) => { const button = element("button", shorter(callText(data.calls[at]), 60), { click: () => openCall(at) }); button.type = "button"; return button; });
  const more = places.length - shown.length + missing;
  if (more > 0) shown.push(element("span", `${counted(more)} more`, { class: "muted" }));
  return chips(shown);
}

function openCall(at) {
  const call = data.calls[at], drawer = byId("drawer"), details = call[DETAILS];
  table.selected = at;
  showRows();
  const environment = data.environments[call[ENVIRONMENT]];
  const close = element("button", "Close", { click: closeCall });
  close.type = "button";
  const copy = element("button", "Copy key", { click: () => copyText(call[KEY], copy) });
  copy.type = "button";
  const see = element("button", "Show in lineage", { click: () => { lineage = { level: "calls", focus: at }; setLevel("calls"); showLineage(); byId("lineage").scrollIntoView({ behavior: "smooth", block: "center" }); } });
  see.type = "button";
  const fn = data.functions[call[FUNCTION]];
  const result = call[RESULT], type = result[1];
  drawer.replaceChildren(...[
    element("header", [element("div", [element("p", fn.module || "call", { class: "brand" }), element("h2", fn.name)]), close], { class: "top" }),
    section("Arguments", pairs(Object.entries(call[ARGUMENTS]).map(([name, value]) => [name, element("span", valueText(value), { class: "code" })]))),
    section(call[FAILED] ? "Raised" : "Result", element("div", [element("p", [element("span", resultText(call), { class: "code" }), type ? element("span", `  ${type}`, { class: "muted" }) : null]), preview(at)], { class: "preview" })),
    section("Record", pairs([
      ["key", element("span", `${call[KEY].slice(0, 16)}…`, { class: "code" })],
      ["version", call[VERSION]],
      ["started", call[STARTED] === null ? null : moment(call[STARTED])],
      ["took", call[TOOK] === null ? null : `${duration(call[TOOK])}${details.cpu === null ? "" : ` (${duration(details.cpu)} of processor)`}`],
      ["where", data.hosts[call[HOST]]],
      ["size", call[SIZE] === null ? null : bytes(call[SIZE])],
      ...Object.entries(details.metadata).flatMap(([name, fields]) => Object.entries(fields).map(([each, value]) => [name === "tags" ? each : `${name}.${each}`, value])),
    ])),
    element("div", [copy, call[CHILDREN].length || parents[at].length ? see : null], { class: "controls" }),
    section("Called by", linksTo(parents[at])),
    section("Calls", linksTo(call[CHILDREN], details.children - call[CHILDREN].length)),
    section("Packages", element("div", [
      pairs([["python", environment.python], ["platform", environment.platform]]),
      chips(Object.entries(environment.packages).map(([name, version]) => element("span", `${name} ${version}`))),
    ], { class: "preview" })),
    section("Code", details.code || details.dependencies.length ? element("div", [
      pairs([["digest", details.code ? element("span", details.code, { class: "code" }) : null]]),
      chips(details.dependencies.map((each) => { const [label, digest] = each.split("\t"); return element("span", label, { title: digest || "" }); })),
    ], { class: "preview" }) : null),
  ].filter(Boolean));
  drawer.hidden = false;
  drawer.scrollTop = 0;
  paint(at);
}

function closeCall() { byId("drawer").hidden = true; table.selected = null; showRows(); }
addEventListener("keydown", (event) => { if (event.key === "Escape") closeCall(); });

function preview(at) {
  const found = data.previews[at];
  if (!found) return null;
  if (found.kind === "image") {
    const image = element("img");
    image.alt = "the result";
    if (/^data:image\/(png|jpeg|gif|svg\+xml);base64,[A-Za-z0-9+/=]*$/.test(found.source)) image.src = found.source;
    return image;
  }
  if (found.kind === "text") return element("pre", found.text + (found.size > found.text.length ? ` … (${counted(found.size)} characters)` : ""));
  if (found.kind === "table") return tablePreview(found);
  if (found.kind !== "array") return null;
  const canvas = element("canvas");
  canvas.id = "strip";
  canvas.width = found.width;
  canvas.height = found.height;
  canvas.style.height = `${Math.max(34, Math.min(found.height * 6, 240))}px`;
  const bar = element("canvas");
  bar.id = "scale";
  bar.width = 128;
  bar.height = 1;
  bar.style.height = "8px";
  return element("div", [
    canvas, bar,
    element("div", [element("span", `min ${number(found.low)}`), element("span", `mean ${number(found.mean)}`), element("span", `max ${number(found.high)}`)], { class: "scale" }),
    element("p", `${found.dtype}[${found.shape.join(", ")}]${found.shape.length > 2 ? ", the first dimension downwards" : ""}; begins ${found.first.map(number).join(", ")}`, { class: "muted" }),
  ], { class: "preview" });
}

function paint(at) {
  const found = data.previews[at], canvas = byId("strip");
  if (!found || found.kind !== "array" || !canvas) return;
  const levels = atob(found.levels), context = canvas.getContext("2d");
  const image = context.createImageData(found.width, found.height);
  for (let each = 0; each < levels.length; each += 1) {
    const level = levels.charCodeAt(each);
    const [red, green, blue] = level === 255 ? [128, 128, 128] : ramp(level / 254);
    image.data.set([red, green, blue, level === 255 ? 60 : 255], each * 4);
  }
  context.putImageData(image, 0, 0);
  const scale = byId("scale").getContext("2d"), strip = scale.createImageData(128, 1);
  for (let each = 0; each < 128; each += 1) strip.data.set([...ramp(each / 127), 255], each * 4);
  scale.putImageData(strip, 0, 0);
}

function tablePreview(found) {
  const head = found.columns ? element("thead", element("tr", found.columns.map((each) => element("th", each)))) : null;
  const rows = element("tbody", found.rows.map((row) => element("tr", row.map((each, at) => element(at === 0 ? "th" : "td", each)))));
  const [count, width] = found.size, more = count - found.rows.length;
  return element("div", [
    element("div", element("table", [head, rows]), { class: "scroll" }),
    more > 0 ? element("p", `${counted(more)} more of ${found.columns ? `${counted(count)} rows × ${counted(width)} columns` : plural(count, "item")}`, { class: "muted" }) : null,
  ], { class: "preview" });
}

function copyText(text, button) {
  const before = button.textContent, done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = before; }, 1200); };
  if (navigator.clipboard?.writeText) navigator.clipboard.writeText(text).then(done, () => byHand(text, done));
  else byHand(text, done);
}
function byHand(text, done) {
  const area = element("textarea", text);
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  done();
}
