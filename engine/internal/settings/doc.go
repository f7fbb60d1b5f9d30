// Package settings checks the values of settings, one by one, and describes the faults for the operator.
//
// What it refuses to do: it knows no setting by its name.
//
// Start reading at texts.go.
package settings
