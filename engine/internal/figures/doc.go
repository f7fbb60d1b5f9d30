// Package figures has the figures of a server: what they are called, where they are read, and how those of several workers are
// added up.
//
// What it refuses to do: it counts nothing itself, and it has no figure without a row in a table.
//
// Start reading at figure.go and rows.go.
package figures
