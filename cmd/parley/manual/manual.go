// Package manual writes manual pages in the language of man(7): one for the commands, one for the settings.
//
// What it refuses to do: knowing a command or a setting. Start reading at Book.
package manual

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A Book is what both pages have in their heads.
type Book struct{ Version, Date string }

// An Entry is a term, and the text below it.
type Entry struct{ Term, Text string }

// A Group are entries below a title of their own.
type Group struct {
	Title   string
	Entries []Entry
}

// Commands is what parley(1) says besides the commands' own help.
//
// Owner: the caller.
type Commands struct {
	Root *cobra.Command
	// Setting reports whether a flag is a setting, which the other page explains.
	Setting     func(*pflag.Flag) bool
	Exits       []Entry
	Environment []Entry
}

// Commands returns parley(1).
func (b Book) Commands(c Commands) string {
	var r roff
	r.title("parley", "1", b)
	r.section("name")
	fmt.Fprintf(&r, "parley \\- %s\n", escaped(lowered(c.Root.Short)))
	r.section("synopsis")
	r.WriteString("\\fBparley\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR] [\\fIFLAGS\\fR]\n")
	r.section("description")
	r.paragraphs("parley serve is the server. The other commands look at a running server, speak to its HTTP API, check settings, and make keys and\n" +
		"tokens. The settings are in parley.yaml(5).\n\nparley COMMAND --help prints the help of one command.")
	r.section("commands")
	for _, one := range c.Root.Commands() {
		r.command(one, c.Setting)
	}
	r.section("exit status")
	r.entries(c.Exits)
	r.section("environment")
	r.entries(c.Environment)
	r.section("files")
	r.entries([]Entry{
		{"/etc/parley.yaml", "The settings of the service, where the Debian package is installed. Other commands read it with --config."},
		{"/var/lib/parley", "The sessions that outlive the server (data_dir), where the Debian package is installed."},
	})
	r.section("see also")
	r.paragraphs("parley.yaml(5), https://github.com/parleyd/parley")
	return r.String()
}

// Settings returns parley.yaml(5): the settings, group by group, and the lists that a file may have besides.
func (b Book) Settings(groups []Group, lists []Entry) string {
	var r roff
	r.title("parley.yaml", "5", b)
	r.section("name")
	r.WriteString("parley.yaml \\- settings of the WebSocket room server parley\n")
	r.section("synopsis")
	r.WriteString("\\fBparley serve \\-\\-config\\fR \\fI/etc/parley.yaml\\fR\n")
	r.section("description")
	r.paragraphs("The file is YAML or JSON: a line such as \"port: 9090\" for each setting that differs from its default. " +
		"A setting is also a flag (--port 9090) and a variable (PARLEY_PORT=9090). Flags win over variables, variables over the file.\n\n" +
		"parley check-config FILE checks a file and prints each value with its source. parley default-config prints a file to start from. " +
		"On SIGHUP the server reads the file again; its log names the settings that need a restart.")
	r.section("settings")
	for _, g := range groups {
		r.part(g.Title)
		r.entries(g.Entries)
	}
	r.section("lists")
	r.entries(lists)
	r.section("example")
	r.example("host: 127.0.0.1\nport: 9090\norigins: [https://www.example.com]\ntrusted_proxies: [127.0.0.1]\ndata_dir: /var/lib/parley")
	r.section("see also")
	r.paragraphs("parley(1), https://github.com/parleyd/parley/blob/main/docs/configuration.md")
	return r.String()
}

// lowered is text that goes on a sentence.
func lowered(text string) string { return strings.ToLower(text[:1]) + text[1:] }

// command describes a command, and those below it. `rooms ls` is `rooms`, and so is not repeated.
func (r *roff) command(c *cobra.Command, setting func(*pflag.Flag) bool) {
	if c.Hidden || c.Name() == "help" {
		return
	}
	r.part(c.CommandPath() + strings.TrimPrefix(c.Use, c.Name()))
	text := c.Long
	if text == "" {
		text = c.Short + "."
	}
	if c.Flags().Lookup("config") != nil {
		text += "\n\nEach setting of parley.yaml(5) is a flag, and --config names a file of settings."
	}
	r.paragraphs(text)
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !setting(f) && !f.Hidden && f.Name != "help" && f.Name != "config" {
			r.entries([]Entry{flagEntry(f)})
		}
	})
	if c.Example != "" {
		r.example(c.Example)
	}
	for _, below := range c.Commands() {
		if below.Short != c.Short {
			r.command(below, setting)
		}
	}
}

// flagEntry is a flag with the word for its value, and its meaning with its default.
func flagEntry(f *pflag.Flag) Entry {
	word, text := pflag.UnquoteUsage(f)
	term := "--" + f.Name
	if word != "" {
		term += " " + word
	}
	switch f.DefValue {
	case "", "false", "0", "0s", "[]":
	default:
		text += fmt.Sprintf(" (default %s)", f.DefValue)
	}
	return Entry{term, text}
}

// A roff is a manual page in the language of man(7).
type roff struct{ strings.Builder }

// rawText makes characters that roff would read as commands, or print as others, print as they are.
var rawText = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`)

// escaped is text in which no line is taken for a request.
func escaped(text string) string {
	lines := strings.Split(rawText.Replace(text), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}

func (r *roff) title(name, section string, b Book) {
	fmt.Fprintf(r, ".TH %s %s \"%s\" \"parley %s\" \"Parley\"\n", strings.ToUpper(name), section, escaped(b.Date), escaped(b.Version))
}

func (r *roff) section(title string) { fmt.Fprintf(r, ".SH %s\n", escaped(strings.ToUpper(title))) }
func (r *roff) part(title string) {
	fmt.Fprintf(r, ".SS \"%s\"\n", strings.ReplaceAll(escaped(title), `"`, `\(dq`))
}

// paragraphs writes text whose paragraphs are divided by an empty line.
func (r *roff) paragraphs(text string) {
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		fmt.Fprintf(r, ".PP\n%s\n", escaped(paragraph))
	}
}

// entries writes each term in bold, and its text below.
func (r *roff) entries(list []Entry) {
	for _, e := range list {
		fmt.Fprintf(r, ".TP\n\\fB%s\\fR\n%s\n", escaped(e.Term), escaped(e.Text))
	}
}

// example writes lines as they are.
func (r *roff) example(lines string) {
	fmt.Fprintf(r, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", escaped(strings.Trim(lines, "\n")))
}
