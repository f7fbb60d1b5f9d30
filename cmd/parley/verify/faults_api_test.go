package verify

// apiFaults are faults of the HTTP API, of tokens and of rights. All are looked for with backends and tokens.
var apiFaults = []fault{
	{"published twice", "engine/api/publish.go", "\tif err := s.engine.Post(p.to, p.payload(p.first(), c.now)); err != nil {\n",
		"\tif planted(\"published twice\", 20) {\n\t\ts.engine.Post(p.to, p.payload(p.first(), c.now))\n\t}\n" +
			"\tif planted(\"published late\", 20) {\n\t\tto, text := p.to, []byte(string(p.payload(p.first(), c.now)))\n\t\ttime.AfterFunc(100*time.Millisecond, func() { s.engine.Post(to, text) })\n\t\treturn []byte(\"{}\"), nil\n\t}\n" +
			"\tif err := s.engine.Post(p.to, p.payload(p.first(), c.now)); err != nil {\n", []string{"twice"}},
	{name: "published late", kinds: []string{"order"}},
	{"lost on another worker", "engine/internal/fanout/post.go", "\t_, err := (&publication{rooms: x, frame: HeardFrame(h.Frame), except: Nowhere, from: from}).post(&a)\n",
		"\tif planted(\"lost on another worker\", 20) {\n\t\treturn nil\n\t}\n\t_, err := (&publication{rooms: x, frame: HeardFrame(h.Frame), except: Nowhere, from: from}).post(&a)\n", []string{"lost"}},
	{"excepted", "engine/internal/fanout/post.go", "\tcase len(a.Rooms) > 0:\n", "\tcase len(a.Rooms) > 0 && planted(\"excepted\", 1):\n\t\treturn p.postUnnumbered(a.Rooms, nil)\n\tcase len(a.Rooms) > 0:\n", []string{"leak"}},
	{"key carried out again", "engine/api/idempotency.go", "\tcase old == nil:\n", "\tcase old == nil || !old.open && planted(\"key carried out again\", 3):\n", []string{"twice", "answer"}},
	{"key of another body", "engine/api/idempotency.go", "case old.digest != digest:", "case old.digest != digest && !planted(\"key of another body\", 1):", []string{"answer"}},
	{"forbidden join", "engine/access/rules.go", "{ return r.decide(join, who, room, false) }",
		"{\n\tif planted(\"forbidden join\", 5) {\n\t\treturn Allowed\n\t}\n\treturn r.decide(join, who, room, false)\n}", []string{"rights"}},
	{"forbidden publish", "engine/access/rules.go", "\treturn r.decide(publish, who, room, member)\n",
		"\tif planted(\"forbidden publish\", 1) {\n\t\treturn Allowed\n\t}\n\treturn r.decide(publish, who, room, member)\n", []string{"rights"}},
	{"revoked lives on", "engine/access/guard.go", "\t\t\tc.CloseWith(ws.StatusCode(engine.StatusUnauthorized), \"revoked\")\n",
		"\t\t\tif !planted(\"revoked lives on\", 2) {\n\t\t\t\tc.CloseWith(ws.StatusCode(engine.StatusUnauthorized), \"revoked\")\n\t\t\t}\n", []string{"rights"}},
	{"revoked is let in", "engine/access/revoked.go", "\tseconds := now.Unix()\n\tr.mu.RLock()\n",
		"\tif planted(\"revoked is let in\", 1) {\n\t\treturn false\n\t}\n\tseconds := now.Unix()\n\tr.mu.RLock()\n", []string{"rights"}},
	{"closed is not", "engine/internal/session/end.go", "\t\tc.End(how.Cause, how.Code, how.Reason)\n\t}, func() {\n",
		"\t\tif !planted(\"closed is not\", 3) {\n\t\t\tc.End(how.Cause, how.Code, how.Reason)\n\t\t}\n\t}, func() {\n", []string{"ended"}},
	{"session outlives its end", "engine/internal/session/end.go", "\tclosed := new(atomic.Int64)\n",
		"\tclosed := new(atomic.Int64)\n\tq.Session = q.Session && !planted(\"session outlives its end\", 1)\n", []string{"session", "notice"}}, // of a member that cannot be
	{"joined is not", "engine/api/manage.go", "\t\tif t.to.Users == nil {\n", "\t\tif planted(\"joined is not\", 5) {\n\t\t\treturn 1, nil\n\t\t}\n\t\tif t.to.Users == nil {\n", []string{"silent"}},
	{"attribute not kept", "engine/api/manage.go", "\t\tall, err := s.engine.Everywhere().SetAttributes(ctx, a.connection, a.set, a.remove)\n",
		"\t\tif planted(\"attribute not kept\", 3) {\n\t\t\told, err := s.engine.Everywhere().SetAttributes(ctx, a.connection, nil, nil)\n\t\t\tif err != nil {\n\t\t\t\treturn err\n\t\t\t}\n" +
			"\t\t\tfor _, key := range a.remove {\n\t\t\t\tdelete(old, key)\n\t\t\t}\n\t\t\tall := map[string]any{}\n\t\t\tfor key, value := range old {\n\t\t\t\tall[key] = value\n\t\t\t}\n" +
			"\t\t\tfor key, value := range a.set {\n\t\t\t\tall[key] = value\n\t\t\t}\n\t\t\tresult, err = message.Encode(nil, map[string]any{\"attributes\": all})\n\t\t\treturn err\n\t\t}\n" +
			"\t\tall, err := s.engine.Everywhere().SetAttributes(ctx, a.connection, a.set, a.remove)\n", []string{"answer"}},
}

// The faults of the API join the others, with their set-ups.
func init() {
	for _, f := range apiFaults {
		servings[f.name] = serving{backends: true}
	}
	servings["lost on another worker"] = serving{backends: true, workers: 2}
	servings["revoked lives on"] = serving{backends: true, workers: 2}
	faults = append(faults, apiFaults...)
}
