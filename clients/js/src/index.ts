export { Parley } from "./client.js";
export { ParleyError } from "./error.js";
export { codes, states } from "./words.js";
export type * from "./types.js";
