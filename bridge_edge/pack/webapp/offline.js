// The service worker: keeps one whole, checked version of the app. sw.js brings RELEASE: {version, files: [[path,
// sha256, bytes]]}. A version is in use only after every file of it was there with the right digest; until then, and if
// that never happens, the version before it answers.

const OWN = `bridge-edge ${self.registration.scope} `; // other apps on this host have caches of their own
const CACHE = OWN + RELEASE.version;
const KEPT_HEADERS = [
  "content-type",
  "content-security-policy",
  "cross-origin-embedder-policy",
  "cross-origin-opener-policy",
  "x-content-type-options",
];

// The GGUF engine comes in two builds, of which this browser needs one.
function needless(path) {
  let modern = Boolean(WebAssembly.Suspending);
  try {
    new WebAssembly.Memory({ address: "i64", initial: 1n });
  } catch {
    modern = false;
  }
  return path.startsWith("vendor/compat.") ? modern : path === "vendor/wllama.wasm" && !modern;
}

async function tell(message) {
  for (const client of await self.clients.matchAll({ includeUncontrolled: true })) {
    client.postMessage({ version: RELEASE.version, ...message });
  }
}

async function checked(response, sha256) {
  if (!response?.ok) return null;
  const bytes = await response.arrayBuffer();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) return null;
  const kept = KEPT_HEADERS.filter((name) => response.headers.has(name));
  return new Response(bytes, { headers: kept.map((name) => [name, response.headers.get(name)]) });
}

// A file that the last version has already is not fetched again.
async function take(cache, older, path, sha256) {
  if (await checked(await cache.match(path), sha256)) return;
  for (const name of older) {
    const copy = await checked(await (await caches.open(name)).match(path), sha256);
    if (copy) return cache.put(path, copy);
  }
  const fresh = await checked(await fetch(path, { cache: "no-store", redirect: "error" }), sha256);
  if (!fresh) throw new Error(`${path} is not the file that was packed`);
  await cache.put(path, fresh);
}

async function install() {
  const cache = await caches.open(CACHE);
  const older = (await caches.keys()).filter((name) => name.startsWith(OWN) && name !== CACHE);
  const files = RELEASE.files.filter(([path]) => !needless(path));
  const total = files.reduce((sum, [, , bytes]) => sum + bytes, 0);
  let done = 0;
  try {
    for (const [path, sha256, bytes] of files) {
      await take(cache, older, path, sha256);
      done += bytes;
      await tell({ type: "progress", done, total });
    }
  } catch (error) {
    await tell({ type: "failed", message: error.message });
    throw error;
  }
}

async function activate() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OWN) && name !== CACHE).map((name) => caches.delete(name)));
  await self.clients.claim();
}

// What is not part of the version (the history of versions) comes from the network, or as it was seen last.
async function respond(request) {
  if (request.url === new URL("version", self.registration.scope).href) return new Response(RELEASE.version);
  const cache = await caches.open(CACHE);
  const page = request.mode === "navigate" && new URL(request.url).pathname.endsWith("/");
  const kept = await cache.match(page ? "index.html" : request, { ignoreSearch: true });
  if (kept && !request.url.endsWith("/VERSIONS.json")) return kept;
  try {
    const response = await fetch(request);
    if (response.ok && request.url.endsWith("/VERSIONS.json")) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    if (kept) return kept;
    return new Response("offline", { status: 503, headers: { "content-type": "text/plain" } });
  }
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => event.data === "take over" && self.skipWaiting());
self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && new URL(url).origin === self.location.origin) event.respondWith(respond(event.request));
});
