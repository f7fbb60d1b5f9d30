/** True where the device knows that it has no network. */
export const offline = (): boolean => (globalThis as any).navigator?.onLine === false;

/** Tells of the network and of a page that is looked at again, where there are such things. Returns how to stop. */
export function watch(back: () => void, gone: () => void): () => void {
  const page = (globalThis as any).document;
  const seen = () => page.visibilityState === "visible" && back();
  const each = (verb: "addEventListener" | "removeEventListener") => {
    (globalThis as any)[verb]?.("online", back);
    (globalThis as any)[verb]?.("offline", gone);
    page?.[verb]("visibilitychange", seen);
  };
  each("addEventListener");
  return () => each("removeEventListener");
}
