package docs

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// noExamples is for pages without a program, a command in a block, or a dialogue. The words that they name are the concern of
// TestWordsOfPages, TestNamesExist, TestPages in cmd/parley and TestLinks, as those of all pages.
const noExamples = "no examples"

// generated is for pages that a test compares with what the code prints.
const generated = "generated: "

// notCovered is for examples that no test runs, with the reason.
const notCovered = "not covered: "

// covered has for each page the tests that run or check its examples. Parts end with a semicolon.
var covered = map[string]string{
	"README.md": "TestReadmePrograms; TestReadmeProgramRuns; TestReadmeTenMinutes; TestReadmeBackends; TestReadmeDialogue; " +
		"not covered: `make run` and `make test` of the first minute, which the tests of continuous integration are part of, and the lines in TypeScript, " +
		"which the tests of the client's README hold in a longer form",
	"README.zh.md":                        "TestReadmesAgree",
	"clients/js/README.md":                "clients/js/test/browser.test.ts; clients/js/test/package.test.ts; not covered: `npm install`, since the package is not published yet",
	"docs/CONTRIBUTING.md":                "TestCommandsOfPages; TestMap; not covered: commands that take minutes: their targets, folders and tests exist",
	"docs/README.md":                      noExamples,
	"docs/SECURITY.md":                    "TestSecurityChecklist; TestDefaultsOfSecurity",
	"docs/architecture.md":                noExamples,
	"docs/backend/README.md":              "TestReadmeDescription; TestExamplesAreListed",
	"docs/backend/go/README.md":           noExamples,
	"docs/backend/node/README.md":         noExamples,
	"docs/backend/php/README.md":          noExamples,
	"docs/backend/php/README.zh.md":       noExamples,
	"docs/backend/python/README.md":       noExamples,
	"docs/backend/start.md":               "TestStart",
	"docs/backend/start.zh.md":            "TestExamplesAreListed",
	"docs/benchmark/README.md":            "not covered: it is written by `make bench-full`, which takes an hour",
	"docs/clients.md":                     "TestTranscripts; TestTablesOfMessages; TestCloseCodes; TestClientIsTheSame",
	"docs/codes.md":                       "TestCodes",
	"docs/commandline.md":                 "generated: TestCommandLineDocs",
	"docs/comparison.md":                  noExamples,
	"docs/concepts.md":                    noExamples,
	"docs/concepts.zh.md":                 "TestTranslations",
	"docs/configuration.md":               "generated: TestDocs",
	"docs/deploy/README.md":               "TestSettingsOfPages; TestUnit; TestNginx; TestSystemdUnit",
	"docs/examples/README.md":             noExamples,
	"docs/examples/chat-go/README.md":     "TestExampleChatGo",
	"docs/examples/chat-node/README.md":   "TestExampleChats",
	"docs/examples/chat-php/README.md":    "TestExampleChats",
	"docs/examples/chat-python/README.md": "TestExampleChats",
	"docs/examples/compose/README.md":     "TestExampleCompose; TestExampleOfContainers",
	"docs/examples/game/README.md":        "TestExampleGame",
	"docs/examples/nginx/README.md":       "TestExampleNginx",
	"docs/examples/presence/README.md":    "TestExamplePresence",
	"docs/examples/private/README.md":     "TestExamplePrivate",
	"docs/examples/systemd/README.md":     "TestExampleSystemd",
	"docs/examples/ticker/README.md":      "TestExampleTicker",
	"docs/from-the-seed.md":               "TestSeedCallsOverWorkers; TestMigrationSettings; TestMigrationBesideEachOther; TestPiecesOfGo",
	"docs/from-the-seed.zh.md":            "TestTranslations",
	"docs/glossary.md":                    "TestGlossary",
	"docs/history.md":                     "TestSettingsOfPages; TestPiecesOfGo",
	"docs/library-handlers.md":            "TestPiecesOfGo; TestLibraryDoors",
	"docs/library-server.md":              "TestPiecesOfGo; TestLibraryDoors",
	"docs/library.md":                     "TestReadmePrograms; TestPiecesOfGo",
	"docs/locks.md":                       "TestLocks",
	"docs/metrics.md":                     "generated: TestDocs",
	"docs/operating.md":                   "TestStatusOfPage; TestStatusOfWorkers; TestCommands",
	"docs/performance.md":                 "not covered: its figures are measurements, and the commands that print them name scenarios and benchmarks that TestCommandsOfPages looks up",
	"docs/processes.md":                   noExamples,
	"docs/release.md":                     "TestSameSums; TestOperatorsWalk; not covered: the commands with a version, as there is no release yet",
	"docs/start.md":                       "TestTutorial",
	"docs/start.zh.md":                    "TestTutorialLanguages",
	"docs/style.md":                       "not covered: its pieces of code show a form, and use names that are made up",
	"docs/tokens.md":                      "TestTokensPage; TestSettingsOfPages",
	"docs/troubleshooting.md":             "TestTroubleshooting; TestTroubleshootingCommands",
	"docs/verify.md":                      "TestVerifyReports; TestVerifyHistory; not covered: runs with kills and lost stores, which take minutes: `make soak` plays such runs",
	"docs/versions.md":                    "TestVersionsOfRecords",
	"docs/walks/go.md":                    "TestWalkGo; TestPiecesFormatted",
	"docs/walks/operator.md":              "TestOperatorsWalk",
	"docs/wire.md":                        "TestTranscripts; TestClientIsDocumented",
}

var exampleBlock = regexp.MustCompile("(?m)^ *```[a-z]+$|^    (?:\\$ |parley )")

// checkCovered says what is wrong with the table, for pages and the tests that there are.
func checkCovered(table, pages map[string]string, known func(test string) bool) (wrong []string) {
	for name := range table {
		if _, exists := pages[name]; !exists {
			wrong = append(wrong, name+": there is no such page: take it out of the table covered")
		}
	}
	for name, text := range pages {
		entry := table[name]
		if entry == "" && strings.HasPrefix(name, "docs/decisions/") {
			entry = noExamples
		}
		switch {
		case entry == "":
			wrong = append(wrong, name+": name the test that runs its examples in the table covered, or say that it has none, or why no test runs them")
		case entry == noExamples:
			if exampleBlock.MatchString(text) {
				wrong = append(wrong, name+": it has an example: name the test that runs it in the table covered")
			}
		default:
			for part := range strings.SplitSeq(strings.TrimPrefix(entry, generated), "; ") {
				if why, excused := strings.CutPrefix(part, notCovered); excused && len(why) < 20 {
					wrong = append(wrong, name+": say why it is not covered")
				} else if !excused && !known(part) {
					wrong = append(wrong, fmt.Sprintf("%s: there is no test %s", name, part))
				}
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// Each page has the tests of its examples in the table covered, or the reason why there are none.
func TestPagesAreCovered(t *testing.T) {
	all, everything, w := pages(t), files(t, ""), plant(t)
	known := func(test string) bool {
		_, file := everything[test]
		return file && strings.Contains(path.Base(test), "test") || w.packages["tests"][test]
	}
	for _, c := range [][3]string{
		{"docs/wire.md", "", "a page without an entry"}, {"docs/wire.md", noExamples, "a page with examples"}, {"docs/wire.md", "TestNothing", "no test"},
		{"docs/wire.md", "clients/js/test/nothing.test.ts", "no file"}, {"docs/wire.md", "not covered: no", "no reason"}, {"docs/nothing.md", noExamples, "no page"},
	} {
		planted := maps.Clone(covered)
		planted[c[0]] = c[1]
		if len(checkCovered(planted, all, known)) == len(checkCovered(covered, all, known)) {
			t.Errorf("%s: the planted fault goes unnoticed: the rule does not run", c[2])
		}
	}
	for _, fault := range checkCovered(covered, all, known) {
		t.Error(fault)
	}
}
