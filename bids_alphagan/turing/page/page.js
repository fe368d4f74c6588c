"use strict";
// From the start to the file of answers, one scan after the other, without going back.

(function () {
  function $(id) { return document.getElementById(id); }
  var kit = JSON.parse($("kit").textContent), store = new Store(kit), session = null, since = 0, clash = false;
  var viewer = new Viewer($("canvas"), kit, follow), n = kit.scans.length, spoken = 0;
  var VIEWS = ["start", "scan", "end"];

  function view(name) {
    VIEWS.forEach(function (id) { $(id).hidden = id !== name; });
    $(name + "-title").focus();
    window.scrollTo(0, 0);
  }
  function say(text) { $("said").textContent = text; }
  function chosen(name) { var input = document.querySelector("input[name=" + name + "]:checked"); return input && input.value; }
  function choose(name, value) {
    document.querySelectorAll("input[name=" + name + "]").forEach(function (input) { input.checked = input.value === value; });
  }

  // ---- start
  function start() {
    $("unsaved").hidden = store.works();
    $("resume").hidden = !session;
    $("form").hidden = !!session;
    if (session) $("resume-text").textContent = session.rater + ": " + session.answers.length + " of " + n + " scans are answered.";
    var done = store.sessions().filter(function (stored) { return stored.finished; });
    $("earlier").hidden = !done.length;
    $("earlier-list").replaceChildren();
    done.forEach(function (stored) {
      var item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.textContent = "Download the answers of " + stored.rater;
      button.addEventListener("click", function () { download(stored); });
      item.append(button);
      $("earlier-list").append(item);
    });
    view("start");
  }
  $("form").addEventListener("submit", function (event) {
    event.preventDefault();
    var rater = $("rater").value.trim().replace(/\s+/g, " "), years = parseInt($("years").value, 10);
    var existing = store.sessions().filter(function (stored) { return stored.rater.toLowerCase() === rater.toLowerCase(); })[0];
    var wrong = !rater ? "Please enter your name or code." : "";
    if (existing && existing.finished) wrong = "This rater has finished on this device. Each rater answers once.";
    $("rater").setAttribute("aria-invalid", wrong ? "true" : "false");
    $("form-error").textContent = wrong;
    if (wrong) { $("rater").focus(); return; }
    session = existing || newSession(kit, rater, $("expertise").value, isNaN(years) ? null : years);
    store.save(session);
    next();
  });

  $("go-on").addEventListener("click", next);
  $("not-me").addEventListener("click", function () { store.leave(); session = null; start(); });

  // ---- one scan
  function next() {
    if (session.answers.length === n) { finish(); return; }
    var name = session.order[session.answers.length], number = session.answers.length + 1;
    var coded = atob($("s-" + name).textContent), bytes = new Uint8Array(coded.length);
    for (var i = 0; i < coded.length; i++) bytes[i] = coded.charCodeAt(i);
    choose("answer", session.draft.answer);
    choose("confidence", session.draft.confidence);
    since = performance.now();
    $("scan-title").textContent = "Scan " + number + " of " + n;
    $("progress").value = number - 1;
    $("missing").textContent = "";
    view("scan");
    viewer.show(bytes);
    say("Scan " + number + " of " + n);
  }
  function spent() {  // milliseconds on this scan, including earlier page loads
    var now = performance.now(), more = document.hidden ? 0 : now - since;
    since = now;
    session.draft.milliseconds = Math.round((session.draft.milliseconds || 0) + more);
    return session.draft.milliseconds;
  }
  function keep() {
    if (!session || session.finished || clash) return;
    spent();
    if (!store.save(session)) elsewhere();
  }
  document.querySelectorAll("input[name=answer], input[name=confidence]").forEach(function (input) {
    input.addEventListener("change", function () { session.draft[input.name] = input.value; $("missing").textContent = ""; keep(); });
  });
  $("answer-form").addEventListener("submit", function (event) {
    event.preventDefault();
    if (clash) return;
    var answer = chosen("answer"), confidence = chosen("confidence");
    if (!answer || !confidence) {
      $("missing").textContent = "Please choose " + (answer ? "how sure you are" : "real or synthetic") + " first.";
      document.querySelector("input[name=" + (answer ? "confidence" : "answer") + "]").focus();
      return;
    }
    var name = session.order[session.answers.length];
    session.answers.push({ scan: name, answer: answer, confidence: parseInt(confidence, 10), milliseconds: spent() });
    session.draft = {};
    if (session.answers.length === n) session.finished = new Date().toISOString();
    if (!store.save(session)) { elsewhere(); return; }
    viewer.clear();
    next();
  });
  function elsewhere() {
    clash = true;
    $("clash").hidden = false;
    $("next").disabled = true;
    viewer.clear();
  }
  $("reload").addEventListener("click", function () { location.reload(); });
  window.addEventListener("storage", function (event) {
    var stored = event.key === store.key && session && store.current();
    if (stored && stored.session === session.session && stored.answers.length > session.answers.length) elsewhere();
  });
  document.addEventListener("visibilitychange", function () {
    if (!session || session.finished) return;
    if (document.hidden) { session.draft.milliseconds = Math.round((session.draft.milliseconds || 0) + performance.now() - since); }
    since = performance.now();
    if (!clash && !store.save(session)) elsewhere();
  });
  window.addEventListener("pagehide", keep);
  window.addEventListener("beforeunload", function (event) {
    if (session && !session.finished && !store.works()) event.preventDefault();
  });

  // ---- the end
  function finish() {
    var text = answersFile(session);
    $("end-rater").textContent = session.rater;
    $("answers-text").value = text;
    view("end");
    say("All " + n + " scans are answered. Download your answers.");
  }
  function download(rated) {
    var link = document.createElement("a"), name = rated.rater.replace(/[^A-Za-z0-9-]+/g, "-").replace(/^-+|-+$/g, "");
    link.href = URL.createObjectURL(new Blob([answersFile(rated)], { type: "application/json" }));
    link.download = "answers_" + (name || "rater") + "_" + rated.session.slice(0, 6) + ".json";
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 60000);
    say("Downloaded as " + link.download);
  }
  $("download").addEventListener("click", function () { download(session); });
  $("download-so-far").addEventListener("click", function () { download(session); });
  $("another").addEventListener("click", function () { store.leave(); session = null; $("form").reset(); start(); });

  // ---- the viewer's controls
  function follow() {
    $("slice").value = viewer.z;
    $("slice-number").textContent = viewer.z + 1 + " / " + kit.slices;
    $("brightness").value = viewer.brightness;
    $("contrast").value = viewer.contrast;
    $("zoom-value").textContent = Math.round(100 * viewer.zoom) + " %";
    $("canvas").setAttribute("aria-label", "Slice " + (viewer.z + 1) + " of " + kit.slices + " of the scan");
    clearTimeout(spoken);
    spoken = setTimeout(function () {
      if (document.activeElement === $("canvas")) say("Slice " + (viewer.z + 1) + " of " + kit.slices);
    }, 400);
  }
  function slide(id, act) { $(id).addEventListener("input", function () { act(parseFloat($(id).value)); }); }
  slide("slice", viewer.toSlice);
  slide("brightness", function (value) { viewer.toWindow(value, viewer.contrast); });
  slide("contrast", function (value) { viewer.toWindow(viewer.brightness, value); });
  $("zoom-in").addEventListener("click", function () { viewer.zoomBy(1.25); });
  $("zoom-out").addEventListener("click", function () { viewer.zoomBy(0.8); });
  $("plain").addEventListener("click", viewer.plain);
  document.querySelectorAll("input[name=drag]").forEach(function (input) {
    input.addEventListener("change", function () { viewer.drag = input.value; });
  });

  var step = 0.1;
  var keys = {
    PageUp: function () { viewer.toSlice(viewer.z + 1); },
    PageDown: function () { viewer.toSlice(viewer.z - 1); },
    Home: function () { viewer.toSlice(0); },
    End: function () { viewer.toSlice(kit.slices - 1); }
  };
  var arrows = {
    ArrowUp: keys.PageUp, ArrowDown: keys.PageDown,
    ArrowLeft: keys.PageDown, ArrowRight: keys.PageUp,
    "Shift+ArrowUp": function () { viewer.moveTo(viewer.x, viewer.y - step / viewer.zoom); },
    "Shift+ArrowDown": function () { viewer.moveTo(viewer.x, viewer.y + step / viewer.zoom); },
    "Shift+ArrowLeft": function () { viewer.moveTo(viewer.x - step / viewer.zoom, viewer.y); },
    "Shift+ArrowRight": function () { viewer.moveTo(viewer.x + step / viewer.zoom, viewer.y); }
  };
  var letters = {
    "+": function () { viewer.zoomBy(1.25); }, "=": function () { viewer.zoomBy(1.25); },
    "-": function () { viewer.zoomBy(0.8); }, "0": viewer.plain,
    w: function () { viewer.toWindow(viewer.brightness + 5, viewer.contrast); },
    x: function () { viewer.toWindow(viewer.brightness - 5, viewer.contrast); },
    d: function () { viewer.toWindow(viewer.brightness, viewer.contrast + 5); },
    a: function () { viewer.toWindow(viewer.brightness, viewer.contrast - 5); },
    r: pick("answer", "real"), s: pick("answer", "synthetic")
  };
  for (var k = 1; k <= 5; k++) letters[k] = pick("confidence", String(k));
  function pick(name, value) {
    return function () {
      var input = document.querySelector("input[name=" + name + "][value=\"" + value + "\"]");
      input.checked = true;
      input.dispatchEvent(new Event("change"));
      say(input.parentElement.textContent.trim());
    };
  }
  document.addEventListener("keydown", function (event) {
    if ($("scan").hidden || clash || event.ctrlKey || event.metaKey || event.altKey) return;
    var on = event.target, tag = on.tagName, name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.key === "Enter" && (tag !== "BUTTON" && tag !== "SUMMARY")) {
      event.preventDefault();
      $("answer-form").requestSubmit();
      return;
    }
    var own = tag === "INPUT";  // sliders and choices keep their own keys
    var act = (!own && (arrows[(event.shiftKey ? "Shift+" : "") + name] || keys[name])) || ($("letters").checked && letters[name]);
    if (!act) return;
    event.preventDefault();
    act();
  });

  $("slice").max = kit.slices - 1;
  session = store.current();
  if (session && session.finished) finish(); else start();
})();
