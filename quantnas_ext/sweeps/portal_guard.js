// Loaded into NNI's server before its own code (NODE_OPTIONS=--require). NNI listens on every interface, asks nobody
// who they are, and runs what it is told. With this it
// * listens where it is told to alone, on the loopback interface unless the user has asked for all;
// * answers no request whose Host is another name (a page that rebinds its own name to 127.0.0.1) or whose Origin is
//   another page;
// * starts no TensorBoard, which NNI has listen on every interface;
// * changes nothing for a portal that only shows, unless the request has the token of who started it;
// * gives every trial its own parameters, waits longer for its tuner, keeps its list of experiments in the sweep's
//   folder, and ends when the process that started it has ended.
"use strict";

const crypto = require("crypto");
const http = require("http");
const Module = require("module");
const net = require("net");
const os = require("os");
const util = require("util");

const settings = JSON.parse(process.env.QUANTNAS_PORTAL);
delete process.env.QUANTNAS_PORTAL; // trials and tuners start without either
delete process.env.NODE_OPTIONS;

os.homedir = () => settings.home;

if (settings.host !== null) {
  const listen = net.Server.prototype.listen;
  net.Server.prototype.listen = function (...given) {
    const [first] = given;
    const callback = given.find((value) => typeof value === "function");
    if (first !== null && typeof first === "object") {
      if (first.path === undefined && first.fd === undefined && first._handle === undefined) {
        return listen.call(this, { ...first, host: settings.host }, callback);
      }
    } else if (typeof first !== "string" || /^\d+$/.test(first)) {
      const port = typeof first === "function" || first == null ? 0 : Number(first);
      return listen.call(this, { port, host: settings.host }, callback);
    }
    return listen.apply(this, given);
  };
}

const LOOPBACK = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/i;

function hasToken(request) {
  const given = Buffer.from(String(request.headers["x-sweep-token"] || ""));
  const token = Buffer.from(settings.token);
  return given.length === token.length && crypto.timingSafeEqual(given, token);
}

function refusal(request) {
  const { host, origin } = request.headers;
  if (settings.host !== null && !LOOPBACK.test(host || "")) {
    return "this portal is reached as localhost alone";
  }
  if (origin !== undefined && origin.toLowerCase() !== `http://${host}`.toLowerCase()) {
    return "another page may not use this portal";
  }
  const reads = request.method === "GET" || request.method === "HEAD";
  if (!reads && /\/tensorboard/.test(request.url)) {
    return "TensorBoard is not started from here: run tensorboard --logdir on the sweep's folder";
  }
  if (!reads && settings.readonly && !hasToken(request)) {
    return "this portal only shows";
  }
  return null;
}

const emit = http.Server.prototype.emit;
http.Server.prototype.emit = function (...all) {
  const [event, request, answer] = all;
  const asks = ["request", "upgrade", "connect", "checkContinue", "checkExpectation"].includes(event);
  const reason = asks ? refusal(request) : null;
  if (reason === null) {
    return emit.apply(this, all);
  }
  if (event === "upgrade" || event === "connect") {
    answer.end(`HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n${reason}\n`); // a socket
  } else {
    answer.writeHead(403, { "Content-Type": "text/plain", Connection: "close" });
    answer.end(`${reason}\n`);
  }
  return true;
};

// NNI gives its tuner ten seconds to start, in which Python has not loaded NNI on a machine that is busy with trials.
const setTimer = globalThis.setTimeout;
globalThis.setTimeout = function (action, delay, ...more) {
  const ofTuner = delay === 10000 && new Error().stack.includes("tuner_command_channel");
  return setTimer(action, ofTuner ? 180000 : delay, ...more);
};
Object.assign(globalThis.setTimeout, setTimer, {
  [util.promisify.custom]: setTimer[util.promisify.custom],
});

// NNI hands parameters to trials in the order in which they ask, so that of two that start together each may run what
// the portal says of the other. A trial that has its id before it starts gets its own, as those that are resumed do.
const load = Module._load;
Module._load = function (request, ...more) {
  const loaded = load.call(this, request, ...more);
  const service = /training_service\/v3\/compat$/.test(request) ? loaded.V3asV1.prototype : {};
  if (service.submitTrialJob && !service.submitsWithId) {
    const submit = service.submitTrialJob;
    service.submitsWithId = true;
    service.submitTrialJob = async function (form) {
      await this.startDeferred.promise;
      const environment = form.id ? null : this.schedule();
      return submit.call(this, environment ? { ...form, id: newId(), envId: environment } : form);
    };
  }
  return loaded;
};

function newId() {
  return Array.from(crypto.randomBytes(5), (byte) => "abcdefghijkmnpqrstuvwxyzABCDEFGH"[byte % 32]).join("");
}

setInterval(() => {
  if (process.ppid !== settings.owner) {
    process.kill(process.pid, "SIGTERM");
  }
}, 500).unref();
