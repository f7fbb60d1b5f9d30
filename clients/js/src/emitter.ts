type Listener = (v: any) => void;

/** Listeners by name. A listener that throws keeps no other one from being called. */
export class Emitter {
  #all: Record<string, Set<{ f: Listener }>> = {};

  on(name: string, f: Listener): () => void {
    const entry = { f };
    const set = (this.#all[name] ??= new Set());
    set.add(entry);
    return () => void set.delete(entry);
  }

  /** Calls the listeners there are, in order, for as long as `go` says so. */
  emit(name: string, v: unknown, go: () => boolean): void {
    const set = this.#all[name];
    for (const entry of set ? [...set] : []) {
      if (!go()) return;
      if (!set!.has(entry)) continue;
      try {
        entry.f(v);
      } catch (e) {
        queueMicrotask(() => {
          throw e;
        });
      }
    }
  }
}
