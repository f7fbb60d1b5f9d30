package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/protocol/ident"
)

// process is one run of a ward.
//
// Owner: the supervisor's goroutine.
type process struct {
	ward     *ward
	instance ident.Worker
	cmd      *exec.Cmd
	conn     net.Conn
	commands chan []byte   // for writeCommands
	gone     chan struct{} // closed once it was reaped
	output   *tail

	started   time.Time
	startedAt time.Duration // as Supervisor.age, like the next three
	readyAt   time.Duration
	beatAt    time.Duration
	drainAt   time.Duration
	ready     bool
	draining  bool
	over      time.Duration // of its drain: see Drain.Over
	ordered   bool          // an operator ordered the drain: its end is no failure
	killed    string        // why the supervisor killed it
	kills     int           // steps of escalate that have been taken
}

const commandsMax = 256

// ended is a process that was reaped.
type ended struct {
	state *os.ProcessState
	at    time.Time
}

// spawn starts a process for w. Its reports and its end come as events.
func (s *Supervisor) spawn(w *ward, instance ident.Worker) (*process, error) {
	conn, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &process{ward: w, instance: instance, conn: conn, output: new(tail),
		commands: make(chan []byte, commandsMax), gone: make(chan struct{})}
	p.cmd = exec.Command(s.executable, os.Args[1:]...)
	p.cmd.Args[0] = os.Args[0]
	p.cmd.Env = wardEnviron(os.Environ(), w.role)
	p.cmd.ExtraFiles = []*os.File{theirs}
	switch w.role {
	case RoleWorker:
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, s.listeners...)
	case RoleAPI:
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, s.apiListener)
	}
	p.cmd.SysProcAttr = wardAttributes()
	var readers sync.WaitGroup
	if err := s.connectOutput(p, &readers); err != nil {
		conn.Close()
		return nil, err
	}
	err = p.cmd.Start()
	p.cmd.Stdout.(*os.File).Close()
	p.cmd.Stderr.(*os.File).Close()
	if err != nil {
		conn.Close()
		return nil, err
	}
	p.started, p.startedAt = time.Now(), s.age
	readers.Go(func() { s.readReports(p) })
	go p.writeCommands()
	go s.reap(p, &readers)
	return p, nil
}

// connectOutput connects the output of p with the supervisor's.
func (s *Supervisor) connectOutput(p *process, readers *sync.WaitGroup) error {
	mark := markOf(p.ward, p.instance)
	stdout, err := s.stdout.attach(mark, nil, readers)
	if err != nil {
		return err
	}
	stderr, err := s.stderr.attach(mark, p.output, readers)
	if err != nil {
		stdout.Close()
		return err
	}
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	return nil
}

// controlPair makes a control channel: our end, and the file that the ward inherits.
func controlPair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(pair[0])
		unix.CloseOnExec(pair[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make control channel: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "control")
	file := os.NewFile(uintptr(pair[0]), "control")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make control channel: %w", err)
	}
	return conn, theirs, nil
}

// readReports takes reports until the ward's end of the channel is closed.
func (s *Supervisor) readReports(p *process) {
	lines := bufio.NewScanner(p.conn)
	lines.Buffer(nil, lineMax)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			s.log.Warn("a report of a process cannot be read, and the supervisor will replace the process; please report this", p.attrs("err", err)...)
			return // without beats it will be killed as frozen
		}
		s.post(func() { s.reported(p, r) })
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		s.log.Warn("a report of a process is too long, and the supervisor will replace the process; please report this", p.attrs("err", err)...)
	}
}

// writeCommands writes until the process is gone. It may block, if the ward does not read.
func (p *process) writeCommands() {
	for {
		select {
		case b := <-p.commands:
			if _, err := p.conn.Write(b); err != nil {
				return
			}
		case <-p.gone:
			return
		}
	}
}

// outputGrace bounds the wait for the end of a process's output: its descendants may hold it open.
const outputGrace = 100 * time.Millisecond

// reap waits for the end of p. Its reports and output come before the event of its end.
func (s *Supervisor) reap(p *process, readers *sync.WaitGroup) {
	err := p.cmd.Wait()
	at := time.Now()
	close(p.gone)
	heard := make(chan struct{})
	go func() {
		readers.Wait()
		close(heard)
	}()
	grace := time.NewTimer(outputGrace)
	defer grace.Stop()
	select {
	case <-heard:
	case <-grace.C:
	}
	p.conn.Close()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.log.Error("the supervisor cannot learn how a process ended", p.attrs("err", err)...)
	}
	s.post(func() { s.gone(p, ended{p.cmd.ProcessState, at}) })
}

// say queues a command for the process. A process that leaves commandsMax of them unread is killed.
func (s *Supervisor) say(p *process, c command) {
	b, err := line(c)
	if err != nil {
		s.log.Error("a command to a process cannot be encoded; please report this", "err", err)
		return
	}
	select {
	case p.commands <- b:
	default:
		s.kill(p, fmt.Sprintf("does not read: %d commands are waiting", commandsMax))
	}
}

// kill ends p by force.
func (s *Supervisor) kill(p *process, why string) {
	if p.killed == "" {
		p.killed = why
		s.log.Warn("killing "+title(p.ward.role, p.ward.index), p.attrs("why", why)...)
	}
	s.signal(p, syscall.SIGKILL)
}

func (s *Supervisor) signal(p *process, sig syscall.Signal) {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.log.Error("the supervisor cannot send a signal to a process", p.attrs("signal", sig, "err", err)...)
	}
}

// attrs name the process in a log line.
func (p *process) attrs(more ...any) []any {
	list := []any{"role", p.ward.role}
	if p.ward.role == RoleWorker {
		list = append(list, "worker", p.ward.index)
	}
	return append(append(list, "instance", p.instance, "pid", p.cmd.Process.Pid), more...)
}

// causeOf says how a process ended.
func (p *process) causeOf(state *os.ProcessState) string {
	if p.killed != "" {
		return p.killed
	}
	if state == nil {
		return "unknown"
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return fmt.Sprintf("signal %d (%v)", int(ws.Signal()), ws.Signal())
	}
	return fmt.Sprintf("exit code %d", state.ExitCode())
}
