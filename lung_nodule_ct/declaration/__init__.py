"""What the dataset is: archives, configs, columns, labels, identity, findings and published counts. No I/O."""
