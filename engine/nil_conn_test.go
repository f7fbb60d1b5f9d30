package engine

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// An id that has gone gives a nil connection: every method of it can be called, and every call that takes one.
func TestNilConn(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	s.Rooms().Create("r", RoomOptions{})
	gone := s.Connection("000000000000000000000000")
	v := reflect.ValueOf(gone)
	for i := range v.NumMethod() {
		m := v.Type().Method(i)
		var args []reflect.Value
		for j := 1; j < m.Type.NumIn(); j++ {
			args = append(args, reflect.New(m.Type.In(j)).Elem())
		}
		out := v.Method(i).Call(args)
		for _, o := range out {
			if err, ok := o.Interface().(error); ok && !errors.Is(err, ErrConnectionUnknown) {
				t.Errorf("%s: %v", m.Name, err)
			} else if !ok && o.Type().Implements(reflect.TypeFor[error]()) {
				t.Errorf("%s: no error", m.Name)
			}
		}
	}
	if gone.Alive() || gone.Cause() == CauseNone || !gone.LastActivity().Equal(time.Time{}) {
		t.Error("a connection that is not there lives")
	}
	gone.CloseWith(ws.StatusGoingAway, "x")
	if _, ok := Attribute[int](gone, "k"); ok {
		t.Error("it has an attribute")
	}
	if _, ok := UserData[int](gone); ok {
		t.Error("it has user data")
	}
	told := error(nil)
	s.Rooms().JoinThen(gone, "r", func(err error) { told = err })
	if err := s.Rooms().Join(gone, "r"); err != ErrNotOpen || told != ErrNotOpen || s.Rooms().Has("r", gone) {
		t.Error(err, told)
	}
	s.Rooms().Leave(gone, "r")
	w.drain()
}
