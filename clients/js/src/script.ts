// For a script tag: window.parley has all of it.
import { codes, Parley, ParleyError, states } from "./index.js";

(globalThis as any).parley = { Parley, ParleyError, codes, states };
