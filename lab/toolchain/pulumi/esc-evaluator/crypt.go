package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
)

// box encrypts the static secrets of definitions: AES-GCM, nonce first.
type box struct{ aead cipher.AEAD }

func newBox(key []byte) (box, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return box{}, err
	}
	aead, err := cipher.NewGCM(block)
	return box{aead}, err
}

// Encrypt implements eval.Encrypter.
func (b box) Encrypt(_ context.Context, plaintext []byte) ([]byte, error) {
	nonce := make([]byte, b.aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return b.aead.Seal(nonce, nonce, plaintext, nil), nil
}

// Decrypt implements eval.Decrypter.
func (b box) Decrypt(_ context.Context, ciphertext []byte) ([]byte, error) {
	size := b.aead.NonceSize()
	if len(ciphertext) < size {
		return nil, errors.New("the ciphertext is too short")
	}
	plaintext, err := b.aead.Open(nil, ciphertext[:size], ciphertext[size:], nil)
	if err != nil {
		return nil, errors.New("the ciphertext was not made by this cloud")
	}
	return plaintext, nil
}
