"use strict";
// Sessions are stored in this browser under the kit's id, one at a time; every change is written at once.

function Store(kit) {
  var key = "bids-alphagan-turing:" + kit.kit, memory = null, works = true;
  try {
    localStorage.setItem(key + ":try", "1");
    localStorage.removeItem(key + ":try");
  } catch (error) { works = false; }

  function read() {
    var text = memory;
    try { if (works) text = localStorage.getItem(key); } catch (error) { works = false; }
    try {
      var content = JSON.parse(text);
      if (content && Array.isArray(content.sessions)) return content;
    } catch (error) { /* damaged content is ignored */ }
    return { current: null, sessions: [] };
  }
  function write(content) {
    memory = JSON.stringify(content);
    try { if (works) localStorage.setItem(key, memory); } catch (error) { works = false; }
  }
  this.key = key;
  this.works = function () { return works; };
  this.sessions = function () { return read().sessions; };
  this.current = function () {
    var all = read();
    return all.sessions.filter(function (stored) { return stored.session === all.current; })[0] || null;
  };
  // Answers are only appended: if another tab has stored others, they stay. Returns whether it was written.
  this.save = function (session) {
    var all = read(), index = all.sessions.map(function (stored) { return stored.session; }).indexOf(session.session);
    var given = index >= 0 ? all.sessions[index].answers : [];
    if (JSON.stringify(given) !== JSON.stringify(session.answers.slice(0, given.length))) return false;
    if (index >= 0) all.sessions[index] = session; else all.sessions.push(session);
    all.current = session.session;
    write(all);
    return true;
  };
  this.leave = function () { var all = read(); all.current = null; write(all); };
}

function random(n) {  // a whole number in [0, n), each equally likely
  var word = new Uint32Array(1), limit = Math.floor(4294967296 / n) * n;
  do crypto.getRandomValues(word); while (word[0] >= limit);
  return word[0] % n;
}

function shuffled(items) {
  var order = items.slice();
  for (var i = order.length - 1; i > 0; i--) {
    var j = random(i + 1), kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
  return order;
}

function newSession(kit, rater, expertise, years) {
  var id = "";
  while (id.length < 16) id += random(16).toString(16);
  return {
    format: "bids-alphagan turing answers 1", kit: kit.kit, session: id, rater: rater, expertise: expertise,
    years: years, unseen: true, started: new Date().toISOString(), finished: null,
    order: shuffled(kit.scans), answers: [], draft: {}
  };
}

function crc32(text) {
  var bytes = new TextEncoder().encode(text), crc = -1;
  for (var i = 0; i < bytes.length; i++) {
    crc ^= bytes[i];
    for (var k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
}

// The file of answers. The checksum detects accidental changes, not deliberate ones.
function answersFile(session) {
  var lines = [session.kit, session.session, session.rater, session.expertise, session.order.join(" ")];
  session.answers.forEach(function (answer) {
    lines.push([answer.scan, answer.answer, answer.confidence, answer.milliseconds].join(" "));
  });
  var content = {};
  Object.keys(session).forEach(function (key) { if (key !== "draft") content[key] = session[key]; });
  content.complete = session.answers.length === session.order.length;
  content.checksum = crc32(lines.join("\n"));
  return JSON.stringify(content, null, 1) + "\n";
}
