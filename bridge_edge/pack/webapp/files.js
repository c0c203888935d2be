// The model's files: fetched part by part, each checked against its SHA-256 before anything opens it.

export class Refused extends Error {}

export async function digest(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Map of name -> Blob; `tell(done, total)` counts bytes. A blob of several parts stays where the browser keeps them.
export async function load(files, tell) {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  const found = new Map();
  let done = 0;
  for (const { name, parts } of files) {
    const blobs = [];
    for (const { path, sha256 } of parts) {
      const response = await fetch(path);
      if (!response.ok) throw new Refused(`${path} is missing (status ${response.status}).`);
      const bytes = await response.arrayBuffer();
      if ((await digest(bytes)) !== sha256) {
        throw new Refused(`${path} is not the file that was packed: its SHA-256 differs. It was not loaded.`);
      }
      blobs.push(new Blob([bytes]));
      tell((done += bytes.byteLength), total);
    }
    found.set(name, new Blob(blobs));
  }
  return found;
}
