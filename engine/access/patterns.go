package access

import "github.com/parleyd/parley/protocol/pattern"

// PatternsMax bounds the patterns of one token, and of one set.
const PatternsMax = pattern.SetMax

// Pattern is a compiled pattern of rooms' names. Patterns is a set of them.
type (
	Pattern  = pattern.Pattern
	Patterns = pattern.Set
)

// ParsePattern compiles a pattern. Any goroutine.
func ParsePattern(text string) (Pattern, error) { return pattern.Parse(text) }

// ParsePatterns compiles a set. Any goroutine.
func ParsePatterns(texts []string) (Patterns, error) { return pattern.ParseAll(texts) }
